"""Other ways to compute the networks than PyTorch."""
