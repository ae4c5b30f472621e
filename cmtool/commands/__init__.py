"""Wiring only: each command builds the parts, walks their loop, and tells people about it."""
