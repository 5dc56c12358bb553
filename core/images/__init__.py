"""Init images, masks and results: read, resize, paste back, convert to tensors."""
