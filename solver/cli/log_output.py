"""The log of a command on standard error, whose level the option --verbose raises."""

from __future__ import annotations

import logging

LOG_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
"""Level of the log without --verbose, with it once, and with it twice."""


def set_log_level(verbosity: int) -> None:
    """Send the log of this program to standard error.

    Without --verbose, warnings are written as Python does it without a handler: the text alone.

    Args:
        verbosity: how often --verbose was given.
    """
    logger = logging.getLogger("eightfold")
    logger.setLevel(LOG_LEVELS[min(verbosity, len(LOG_LEVELS) - 1)])
    for earlier in [one for one in logger.handlers if isinstance(one, _StderrHandler)]:
        logger.removeHandler(earlier)
    if verbosity:
        handler = _StderrHandler()
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")
        )
        logger.addHandler(handler)


class _StderrHandler(logging.StreamHandler):
    """Writes to standard error."""
