"""Checkpoints of other programs, read without their code and without running anything of theirs: plugins."""
