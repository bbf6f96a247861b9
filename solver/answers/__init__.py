"""Finds integer answers in the text that a model wrote."""

from .box_content import integer
from .boxed_answer import answer, bare_integer, boxes
from .no_answer import explain_no_answer

__all__ = ["answer", "bare_integer", "boxes", "explain_no_answer", "integer"]
