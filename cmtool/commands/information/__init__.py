"""What ``info`` says of checkpoints, runs and presets."""
