"""Models from elsewhere: which there are, how they get here, and how add-ons are applied."""
