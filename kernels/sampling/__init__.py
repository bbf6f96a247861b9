"""Reproducible sampling of tokens from logits, and the entropy of their distribution."""
