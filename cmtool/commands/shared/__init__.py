"""What several commands share: the console, signals, pictures of the first images, and what a manifest says."""
