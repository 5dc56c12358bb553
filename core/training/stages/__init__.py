"""The stages of a training, each with its own network."""
