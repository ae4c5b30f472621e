"""Networks: plugins that ship with us."""
