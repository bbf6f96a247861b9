"""Paraphrases of problems by an instruct model: how they are written, checked and used."""

from .library import paraphrases

__all__ = ["paraphrases"]
