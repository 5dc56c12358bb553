"""Figures: plots, contact sheets and moving images, one of each for all that shows something."""
