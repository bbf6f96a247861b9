"""A server in a process of its own, with the bundled model on a CPU."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from typing import Any

KEY = "a key"


class ServerProcess:
    """`eightfold serve`, started and ready.

    Args:
        options: further options of the command.
        port: the port; 0 takes a free one.
    """

    def __init__(self, *options: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "eightfold.solver.cli", "serve", "--api-key", KEY]
        command += ["--port", str(port), "--name", "m", "--device", "cpu", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.said = ""
        for line in self.process.stderr:
            self.said += line
            if found := re.search(r" at (http://\S+:(\d+)/v1)", line):
                self.url, self.port = found[1], int(found[2])
                return
        raise AssertionError(f"The server ended: {self.said}")

    def metric(self, name: str) -> float:
        """Return a figure of /metrics."""
        request = urllib.request.Request(
            self.url.replace("/v1", "/metrics"), headers={"Authorization": f"Bearer {KEY}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read().decode()
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found is not None, f"{name} is not in the metrics"
        return float(found[1])

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal and return the exit code and what the process said since its start."""
        self.process.send_signal(number)
        assert self.process.stderr is not None
        rest = self.process.stderr.read()
        return self.process.wait(60), rest

    def client(self, **options: Any) -> Any:
        """Return the official client, connected to the server."""
        import openai

        return openai.OpenAI(base_url=self.url, api_key=KEY, max_retries=0, **options)
