"""What to minimise: one formula for a family of papers, one recipe a file."""
