"""What ``edit`` is made of: the canvas, the sampler, the stream of pictures and where results go."""
