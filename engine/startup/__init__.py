"""Chooses device and sizes, builds the runner, and compiles kernels while weights load."""
