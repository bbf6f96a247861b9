"""The operating system that the kernels need: Linux, with the calls that hold them together."""

from __future__ import annotations

import os
import sys

from .sandbox_errors import SandboxError

NEEDED_CALLS = ("memfd_create", "pidfd_open", "fork")


def check_platform() -> None:
    """Check that kernels can run here.

    Raises:
        SandboxError: if this is not Linux, or a Linux or a Python without the calls.
    """
    missing = [name for name in NEEDED_CALLS if not hasattr(os, name)]
    if missing or not sys.platform.startswith("linux"):
        lacks = f" (os.{missing[0]} is missing)" if missing else ""
        raise SandboxError(
            f"The Python kernels need Linux, and this is {sys.platform}{lacks}; run eightfold in "
            "WSL2 on Windows, or in a Linux container such as Docker's elsewhere."
        )
