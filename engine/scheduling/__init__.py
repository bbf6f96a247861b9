"""Decides what each step computes; pure Python, never torch."""
