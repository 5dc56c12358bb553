"""What is asked for, checked and resolved to the settings that a picture is a function of."""
