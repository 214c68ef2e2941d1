"""InstantID itself, on stock diffusers. Imports nothing of the app but its `RequestError`."""
