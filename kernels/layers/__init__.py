"""Kernels for all parts of a decoder layer except attention, and for token embedding."""
