# PYTHON_ARGCOMPLETE_OK
"""Run the command line: `python -m eightfold.solver.cli` is the same as `eightfold`."""

import sys

from .command_line import main

sys.exit(main())
