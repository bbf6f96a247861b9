"""Attention kernels in CUDA C++ for Hopper GPUs, for use by paged_decode and paged_prefill."""
