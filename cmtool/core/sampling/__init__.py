"""From noise to images: the loops, the reverse-time SDEs, and the samplers that choose them."""
