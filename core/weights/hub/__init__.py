"""Files from the Hugging Face Hub."""
