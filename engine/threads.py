"""Threads that can be waited for again after a wait that was interrupted."""

import threading


class Worker(threading.Thread):
    """A daemon thread whose ``join`` returns only when it has ended.

    Up to Python 3.12 a thread whose ``join`` was interrupted counts as ended while it still runs.
    """

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, daemon=True, **options)  # type: ignore[arg-type]
        self._over = threading.Event()

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._over.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end, at most ``timeout`` seconds.

        Raises:
            RuntimeError: where it has not been started.
        """
        if self.ident is None or self._over.wait(timeout):
            super().join(timeout)
