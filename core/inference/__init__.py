"""Inference: a loaded model, a run of it from plan to images, and its saved steps."""
