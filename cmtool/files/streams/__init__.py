"""Image streams: one file a format, each a source of items and a sink for them."""
