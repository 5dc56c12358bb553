"""Readers of recipes, one module per program."""
