"""Attention kernels in CUDA C++ for Hopper GPUs, as the other kernels call them."""
