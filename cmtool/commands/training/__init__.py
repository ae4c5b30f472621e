"""What the training commands share: from options to a job, and taking up a run."""
