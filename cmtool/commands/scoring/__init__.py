"""What ``fid`` is made of: its two sides, the protocols of published numbers, and curves over a run."""
