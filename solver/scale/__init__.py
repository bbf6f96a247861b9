"""Runs over many problems on a Ray cluster: workers, placement, faults, and their display."""
