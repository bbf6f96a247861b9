"""Sentences about checkpoints that cannot be loaded: what they are, and how to convert them."""
