# PYTHON_ARGCOMPLETE_OK
"""The command line `eightfold`."""

from .command_line import main
from .program import run

__all__ = ["main", "run"]
