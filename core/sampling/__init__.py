"""What a diffusion paper describes: noise, schedules, guidance, the denoiser, and how a sampler is run."""
