"""Prompts: weights and tokens."""
