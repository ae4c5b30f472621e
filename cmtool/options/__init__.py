"""The machinery of options: types, checks, where values come from, and plugins by name."""
