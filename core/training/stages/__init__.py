"""The stages of a training, each a network of its own."""
