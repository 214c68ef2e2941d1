"""Where a picture comes from: its settings as text, an invisible watermark, and signed content credentials."""
