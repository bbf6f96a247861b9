"""Gemma 4's own drafters, the ``-assistant`` checkpoints: few layers over the model's own cache."""
