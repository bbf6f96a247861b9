"""CUDA C++ kernels for Hopper, compiled and loaded at run time."""
