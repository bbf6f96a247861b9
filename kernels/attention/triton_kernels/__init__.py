"""Triton kernels of paged attention; ``paged_decode`` and others one folder up launch them."""
