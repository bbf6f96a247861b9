"""The bundled model's drafter, in the architecture of Gemma 4's: how it was trained.

Its weights are in the folder ``drafter`` inside the bundled model's folder. The engine loads them
from there if `speculate` is "auto".
"""
