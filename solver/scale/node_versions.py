"""The versions of what decides a run's results, on this node."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("eightfold", "torch", "transformers")


def node_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages, without importing them."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def version_difference(expected: Mapping[str, str], there: Mapping[str, str]) -> str | None:
    """Return what differs between two nodes in a few words, or None."""
    for name, wanted in expected.items():
        if there.get(name) != wanted:
            return f"{name} {there.get(name, 'none')}, not {wanted} as here"
    return None
