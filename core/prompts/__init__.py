"""Prompts as text: emphasis and tokens."""
