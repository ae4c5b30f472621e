"""Data: plugins that ship with us."""
