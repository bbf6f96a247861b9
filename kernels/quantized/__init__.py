"""Linear layers whose weights are stored in 8 or 4 bits: kernels, and torch references."""
