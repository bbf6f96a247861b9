"""The tool calls of an attempt: how they run, and what is recorded of them."""
