"""The tensor names of checkpoint formats, and the networks they belong to."""
