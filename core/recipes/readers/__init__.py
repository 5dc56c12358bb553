"""Recipes of this and other programs, each read by a module of its own."""
