"""Figures: plots, contact sheets and animations, shared by everything that draws."""
