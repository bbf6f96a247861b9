"""Runs scheduled steps on a CPU or a GPU, over the paged KV cache."""
