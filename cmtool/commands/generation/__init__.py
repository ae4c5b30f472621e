"""What the commands that draw images share: the sampler of a model, its classes, guidance and batches."""
