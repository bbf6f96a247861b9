"""Experts whose weights are stored in FP8 or 4 bits, as linear layers of the same formats are."""
