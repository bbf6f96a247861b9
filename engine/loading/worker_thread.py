"""Threads that can be waited for again after a wait that was interrupted."""

import threading

from ..model_errors import ModelError

BEGIN_SECONDS = 1.0  # after which a thread that has not begun was not made


class Worker(threading.Thread):
    """A daemon thread whose ``join`` returns only when it has ended.

    Up to Python 3.12 a thread whose ``join`` was interrupted counts as ended while it still runs.
    """

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, daemon=True, **options)  # type: ignore[arg-type]
        self._begun, self._over = threading.Event(), threading.Event()

    def start(self) -> None:
        """Start it. After an interrupt meanwhile, ``ident`` tells whether it runs.

        Raises:
            ModelError: where the system has no thread to give.
            RuntimeError: where it was started before.
        """
        try:
            super().start()
        except RuntimeError as error:
            if self.ident is not None:
                raise
            raise ModelError(
                f"a thread cannot be started ({error}); allow the process more threads and memory"
            ) from error
        except BaseException:
            # The system may have made it without its having got as far as to its number.
            self._begun.wait(BEGIN_SECONDS)
            raise

    def run(self) -> None:
        self._begun.set()
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
