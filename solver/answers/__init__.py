"""Finds integer answers in the text that a model wrote."""

from .boxed_answer import answer, boxes, integer

__all__ = ["answer", "boxes", "integer"]
