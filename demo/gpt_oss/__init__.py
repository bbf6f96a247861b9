"""A tiny gpt-oss model for tests: sinks, experts in MXFP4, the Harmony format.

Importing this package imports neither torch nor transformers.
"""
