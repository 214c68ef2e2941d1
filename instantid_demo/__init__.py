"""From one photo of a face to a new picture of that same person: InstantID (arXiv 2401.07519)."""

__version__ = "1.0.0"
