"""Decides what each step computes and who holds which page; pure Python, never imports torch."""
