"""The page: Gradio Blocks built from the request's fields, one file per tab. Never imports torch."""
