# PYTHON_ARGCOMPLETE_OK
"""The command line `eightfold`."""

from .command_line import main

__all__ = ["main"]
