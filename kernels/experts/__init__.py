"""Layers of experts: kernels for few rows and for many, and what their weights are stored in."""
