"""Faster or smaller ways to compute the same networks."""
