"""Threads that can be joined reliably after an interrupted wait."""

import threading

from .model_errors import ModelError

START_TIMEOUT_SECONDS = 1.0  # a thread that has not run by then was never created


class WorkerThread(threading.Thread):
    """A daemon thread whose ``join`` returns only after the thread has finished.

    Up to Python 3.12, a thread whose ``join`` was interrupted counts as finished while it is still
    running.
    """

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, daemon=True, **options)  # type: ignore[arg-type]
        self._running, self._finished = threading.Event(), threading.Event()

    def start(self) -> None:
        """Start the thread. If this is interrupted, ``ident`` says whether the thread runs.

        Raises:
            ModelError: if the system cannot create another thread.
            RuntimeError: if the thread was started before.
        """
        try:
            super().start()
        except RuntimeError as error:
            if self.ident is not None:
                raise
            raise ModelError(
                f"A thread cannot be started ({error}); allow the process more threads and memory."
            ) from error
        except BaseException:
            # The system may have created the thread before it could set its `ident`.
            self._running.wait(START_TIMEOUT_SECONDS)
            raise

    def run(self) -> None:
        self._running.set()
        try:
            super().run()
        finally:
            self._finished.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait at most ``timeout`` seconds for the thread to finish.

        Raises:
            RuntimeError: if the thread has not been started.
        """
        if self.ident is None or self._finished.wait(timeout):
            super().join(timeout)
