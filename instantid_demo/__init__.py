"""From one photo of a face to a new picture of that same person: InstantID (arXiv 2401.07519)."""

import os

# Threads that spin while they wait slow every other process on the machine down, ten times where two share it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "1.0.0"
