"""Measures a model through the product's own engine: likeness, keypoints, styles, diversity, speed."""
