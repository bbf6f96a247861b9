"""Turns the LaTeX of a box into nodes that say what it says and nothing of how it looks."""
