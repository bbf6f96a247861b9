"""Finds out what the engine must know of a model before it reads a weight."""
