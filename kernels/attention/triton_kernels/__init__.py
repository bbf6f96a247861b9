"""Jitted Triton code of paged attention; the launchers lie one folder up."""
