"""A Jupyter kernel of another environment, and how its cells are run."""

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
from support.kaggle_image import Image


class Kernel:
    """A Jupyter kernel in a process group of its own."""

    def __init__(self, image: Image, folder: Path) -> None:
        file = str(folder / "connection.json")
        write_connection_file(file)
        self.log = open(folder / "kernel.log", "w")  # noqa: SIM115
        self.process = subprocess.Popen(
            [image.python, "-m", "ipykernel_launcher", "-f", file],
            # The parent is named as Jupyter names it: the kernel ends when it does.
            cwd=folder, env=image.environment() | {"JPY_PARENT_PID": str(os.getpid())},
            process_group=0,
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        self.client = BlockingKernelClient(connection_file=file)
        self.client.load_connection_file()
        # A client without a manager judges by the heartbeat, and takes a kernel that is still
        # importing for dead.
        self.client.start_channels(hb=False)

    def wait(self, stop: float) -> None:
        """Returns once it answers.

        Raises:
            RuntimeError: the process ended.
            TimeoutError: `stop` has come.
        """
        while True:
            self.check(stop)
            try:
                return self.client.wait_for_ready(timeout=1)
            except RuntimeError:  # not yet
                continue

    def check(self, stop: float) -> None:
        if self.process.poll() is not None:
            raise RuntimeError(f"the Jupyter kernel ended with {self.process.returncode}")
        if time.monotonic() > stop:
            raise TimeoutError

    def run(self, code: str, stop: float, hear: Callable[[str], None]) -> str:
        """Runs a cell; returns its error, "" for none. Raises as `wait` does."""
        asked, wrong = self.client.execute(code), ""
        while True:
            self.check(stop)
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "stream":
                hear(content["text"])
            elif kind == "error":
                wrong = f"{content['ename']}: {content['evalue'][:300]}"
            ours = message["parent_header"].get("msg_id") == asked
            if ours and kind == "status" and content["execution_state"] == "idle":
                return wrong

    def end(self) -> None:
        self.client.stop_channels()
        kill(self.process)
        self.log.close()


def kill(process: subprocess.Popen[Any]) -> None:
    """Ends a process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(3)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
