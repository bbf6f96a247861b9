"""A headless Chromium, driven through its debugging protocol: what a page logs, asks for and does.

The web socket client is tornado's, which jupyter_client needs anyway.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from tornado.websocket import WebSocketClientConnection, websocket_connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--remote-debugging-port=0", "--remote-allow-origins=*"),
)
PATIENCE = 60.0
"""Seconds that a browser may take for anything on a busy machine."""


class Page:
    """A page of the browser.

    Attributes:
        complaints: what was logged to the console as an error or a warning, and exceptions.
        requests: addresses that were asked for, apart from the page itself.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: WebSocketClientConnection) -> None:
        self._loop = loop
        self._socket = socket
        self._number = 0
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        number = self._number
        message = json.dumps({"id": number, "method": method, "params": parameters})

        async def exchange() -> dict[str, Any]:
            await self._socket.write_message(message)
            while True:
                text = await self._socket.read_message()
                assert text is not None, "the browser has ended"
                reply: dict[str, Any] = json.loads(text)
                if reply.get("id") == number:
                    assert "error" not in reply, reply
                    return reply["result"]  # type: ignore[no-any-return]
                self._note(reply.get("method", ""), reply.get("params", {}))

        return self._loop.run_until_complete(asyncio.wait_for(exchange(), PATIENCE))

    def _note(self, event: str, details: dict[str, Any]) -> None:
        if event == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(details["args"]))
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(details["exceptionDetails"]))
        elif event == "Log.entryAdded":
            self.complaints.append(details["entry"]["text"])
        elif event == "Network.requestWillBeSent" and details["type"] != "Document":
            self.requests.append(details["request"]["url"])
        elif event == "Page.javascriptDialogOpening":
            self.dialogs.append(details["message"])

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page, awaited if it is a promise."""
        result = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + PATIENCE
        while not self.run(script):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)

    def open(self, address: str, width: int = 1280) -> None:
        """Open a page and wait until its script has shown what the address asks for."""
        self.send("Page.navigate", url="about:blank")
        self.complaints.clear()
        self.requests.clear()
        self.send(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.send("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete' && !!document.body.dataset.ready")

    def follow(self, selector: str) -> None:
        """Click on a link within the page and wait until the script has acted on it."""
        click = "dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}))"
        self.run(f"document.querySelector({json.dumps(selector)}).{click}")
        self.wait_for("document.body.dataset.ready === (location.hash || '#')")

    def screenshot(self, file: Path, dark: bool = False) -> None:
        """Write a picture of the whole page."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=features)
        result = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(result["data"]))


@contextmanager
def open_browser(profile: Path) -> Iterator[Page]:
    """Start a browser with an empty profile; skip the test if none is installed."""
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    loop = asyncio.new_event_loop()
    try:
        address = _page_socket(profile / "DevToolsActivePort", process)

        async def connect() -> WebSocketClientConnection:
            return await websocket_connect(address, max_message_size=1 << 28)

        socket = loop.run_until_complete(asyncio.wait_for(connect(), PATIENCE))
        yield Page(loop, socket)

        async def disconnect() -> None:
            socket.close()

        loop.run_until_complete(disconnect())
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        loop.close()


def _page_socket(file: Path, process: subprocess.Popen[bytes]) -> str:
    """Return the address of the first page's web socket, once the browser has written its port."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, "the browser has ended"
        lines = file.read_text().splitlines() if file.exists() else []
        if lines:
            with urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=PATIENCE) as reply:
                pages = [one for one in json.load(reply) if one["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise AssertionError("the browser has not opened its debugging port")
