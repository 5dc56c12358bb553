"""What the page does, without Gradio: the model's thread, the job queue, and the saved runs."""
