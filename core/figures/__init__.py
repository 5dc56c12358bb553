"""Figures: plots, contact sheets and moving pictures, one of each for all that shows something."""
