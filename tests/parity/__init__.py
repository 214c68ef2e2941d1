"""The product against recorded outputs of the original InstantID: `python -m tests.parity --help`."""
