"""The code that every kernel has run before its first cell."""

PREAMBLE = """\
import math, itertools, collections
import numpy, numpy as np
import sympy
import mpmath
mpmath.mp.dps = 64
__import__("sys").set_int_max_str_digits(0)
"""

# Run in a kernel that is kept, between two leases. docs/sandbox.md lists what survives it.
SOFT_RESET = "%reset -f\n" + PREAMBLE
