"""Sampling: noise, schedules, guidance, the denoiser, and the loop that runs a sampler."""
