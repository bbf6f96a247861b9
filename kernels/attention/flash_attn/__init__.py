"""Prefill attention through flash-attn 4 or 2, if one is installed and faster."""
