"""Chooses device and sizes, makes the runner, and compiles kernels while weights load."""
