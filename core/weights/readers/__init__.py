"""Weight files as bytes: safetensors and pickles, mapped or read safely."""
