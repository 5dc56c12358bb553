"""Inference: a loaded model, a run of it from plan to images, and the record it leaves."""
