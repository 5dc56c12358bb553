"""What is asked for, checked and resolved to the settings that an image is a function of."""
