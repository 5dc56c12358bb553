"""Requests, and the settings that they resolve to; these determine an image."""
