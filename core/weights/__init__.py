"""Opens model files."""
