"""Wiring only: each command builds the parts, runs their loop, and reports it."""
