"""Opening model files."""
