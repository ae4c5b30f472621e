"""How the source is cut, in figures, and its layers, in a picture: ``python docs/structure``."""
