"""Pickles of other programs read as data: nothing in them is imported, called or run."""
