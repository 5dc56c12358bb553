"""Safe readers of checkpoints: memory-mapped safetensors and PyTorch pickles."""
