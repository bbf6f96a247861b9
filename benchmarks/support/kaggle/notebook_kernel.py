"""Runs a notebook's cells in a Jupyter kernel of another environment."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.connect import write_connection_file
from support.kaggle.kaggle_environment import KaggleEnvironment


class NotebookKernel:
    """A Jupyter kernel in its own process group.

    Args:
        environment: the environment that it runs in.
        folder: its working folder, which also gets its connection file and its log.
    """

    def __init__(self, environment: KaggleEnvironment, folder: Path) -> None:
        file = str(folder / "connection.json")
        write_connection_file(file)
        self.log = open(folder / "kernel.log", "w")  # noqa: SIM115
        self.process = subprocess.Popen(
            [environment.python, "-m", "ipykernel_launcher", "-f", file],
            # As Jupyter does, name the parent process; the kernel ends when the parent does.
            cwd=folder, env=environment.variables() | {"JPY_PARENT_PID": str(os.getpid())},
            process_group=0,
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        self.client = BlockingKernelClient(connection_file=file)
        self.client.load_connection_file()
        # Without a kernel manager, the client judges by the heartbeat, and takes a kernel that is
        # still importing for a dead one.
        self.client.start_channels(hb=False)

    def wait_ready(self, deadline: float) -> None:
        """Wait until the kernel answers.

        Args:
            deadline: the time to stop waiting at, of `time.monotonic()`.

        Raises:
            RuntimeError: the process has ended.
            TimeoutError: the deadline has passed.
        """
        while True:
            self._check(deadline)
            try:
                return self.client.wait_for_ready(timeout=1)
            except RuntimeError:  # not ready yet
                continue

    def run_cell(self, code: str, deadline: float, on_text: Callable[[str], None]) -> str:
        """Run a cell, and return its error, or "" if it had none.

        Args:
            code: the cell.
            deadline: the time to stop waiting at, of `time.monotonic()`.
            on_text: called with each text that the cell writes to a stream.

        Raises:
            RuntimeError: the process has ended.
            TimeoutError: the deadline has passed.
        """
        request, error = self.client.execute(code), ""
        while True:
            self._check(deadline)
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "stream":
                on_text(content["text"])
            elif kind == "error":
                error = f"{content['ename']}: {content['evalue'][:300]}"
            answers_request = message["parent_header"].get("msg_id") == request
            if answers_request and kind == "status" and content["execution_state"] == "idle":
                return error

    def close(self) -> None:
        """End the kernel and all processes of its group."""
        self.client.stop_channels()
        end_process_group(self.process)
        self.log.close()

    def _check(self, deadline: float) -> None:
        if self.process.poll() is not None:
            raise RuntimeError(f"the Jupyter kernel ended with {self.process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError


def end_process_group(process: subprocess.Popen[Any]) -> None:
    """End a process and its group with SIGTERM, then with SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(3)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
