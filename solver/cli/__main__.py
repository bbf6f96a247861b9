"""`python -m eightfold.solver.cli` is the command `eightfold`."""

import sys

from .command_line import main

sys.exit(main())
