"""Drawing tokens from logits, reproducibly, and the entropy of their distribution."""
