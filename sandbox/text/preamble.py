"""What every kernel has in its namespace before the first cell."""

PREAMBLE = """\
import math, itertools, collections
import numpy, numpy as np
import sympy
import mpmath
mpmath.mp.dps = 64
__import__("sys").set_int_max_str_digits(0)
"""

# A kept kernel between two leases. What it leaves behind is listed in docs/sandbox.md.
SOFT_RESET = "%reset -f\n" + PREAMBLE

# Names of the preamble, for those who describe the sandbox to a model.
NAMES = ("math", "itertools", "collections", "numpy", "np", "sympy", "mpmath")
