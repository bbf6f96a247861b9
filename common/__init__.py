"""Helpers that several parts need: memory limits, errors in one line, valid text, tables."""
