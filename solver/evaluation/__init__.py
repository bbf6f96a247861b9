"""Runs over many problems: their records, scores and intervals."""
