"""Readers of the text that a model writes: a stated grammar each, tolerant where intent is plain.

`turn_reader.py` cuts a turn into spans; the other modules read what stands in one kind of span.
"""
