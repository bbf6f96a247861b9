# PYTHON_ARGCOMPLETE_OK
"""Run the command line: `python -m eightfold.solver.cli` is the same as `eightfold`."""

from .program import run

run()
