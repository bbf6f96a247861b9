"""Reads checkpoints into memory, on a CPU or a GPU."""
