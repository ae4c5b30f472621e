"""The loop, the averaged weights, the batches."""
