"""A pipe by which one thread ends another thread's poll."""

from __future__ import annotations

import contextlib
import os


class WakePipe:
    """A descriptor that is readable from a call of `wake` until the next `clear`.

    The owner must keep `wake` and `close` from running at the same time.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._read

    def wake(self) -> None:
        """Make the descriptor readable; do nothing once the pipe is closed."""
        if self._write >= 0:
            with contextlib.suppress(BlockingIOError):  # full, so it is readable already
                os.write(self._write, b"x")

    def clear(self) -> None:
        """Make the descriptor unreadable again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)

    def close(self) -> None:
        """Close both ends."""
        os.close(self._read)
        os.close(self._write)
        self._read = self._write = -1
