"""Kernels for parts of transformers' modules, which pass on strided tensors."""
