"""Weights that a checkpoint stores quantized: what is read, and the modules that hold them."""
