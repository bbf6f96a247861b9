"""Engines in processes of their own, one for each device."""
