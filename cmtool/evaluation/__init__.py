"""Moments of features and the distance between them."""
