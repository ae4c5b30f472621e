"""Checkpoints, image streams and run directories."""
