"""Gradio is imported as for the page, which takes three fifths of the time."""

from ui.app import import_gradio

import_gradio()
