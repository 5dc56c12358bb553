"""The page's API: its calls, and how they become Gradio endpoints."""
