"""What InstantID costs, as ratios to the original's way of computing: `python -m benchmarks`."""
