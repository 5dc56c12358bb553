"""Comparisons: grids over one to three settings, and races of samplers."""
