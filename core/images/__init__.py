"""Images that a run starts from and makes: read, brought to size, pasted back, turned to tensors."""
