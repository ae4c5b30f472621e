"""The training loop, the EMA, the batches."""
