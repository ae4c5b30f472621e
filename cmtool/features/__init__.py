"""Feature extractors: plugins that ship with us."""
