"""Runs over many problems: their records, their scores, and confidence intervals."""
