"""Speculation: what drafts tokens, how many drafts pay, and what became of them."""
