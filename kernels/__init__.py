"""Attention, sampling and layers: torch references with Triton kernels beside them."""
