"""A run as a self-contained page: scores, plots, problems and conversations."""
