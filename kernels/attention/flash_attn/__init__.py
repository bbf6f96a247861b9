"""Prefill attention through flash-attn 2, if it is installed and faster."""
