"""Prefill attention through flash-attn 2, where it is installed and faster."""
