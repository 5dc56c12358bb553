"""How checkpoints name their tensors, and the networks these are for."""
