"""Clients of a server in a process of their own, on one thread with plain sockets.

    python http_clients.py URL MODEL CLIENTS REQUESTS TOKENS

Each client sends one request at a time and reads the stream, as little of it as will do: an
official client would take more time for an event than the server does, on the same cores. Prints
one line of JSON: seconds, tokens, the seconds of the processor that the clients took, and for each
request the seconds to its first text.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from urllib.parse import urlsplit

PROMPT = "What is the remainder when $5^{8985}$ is divided by 66?"
USAGE = b'"completion_tokens":'
END = b"data: [DONE]"


class Client:
    """A connection that sends request after request.

    Args:
        url: the server's address.
        selector: what waits for the connection.

    Attributes:
        tokens: tokens of all answers.
        first: for each request, the seconds to its first text.
    """

    def __init__(self, url: str, selector: selectors.BaseSelector) -> None:
        where = urlsplit(url)
        self.tokens, self.first = 0, list[float]()
        self._path = f"{where.path}/completions"
        self._host = f"{where.hostname}:{where.port}"
        self._socket = socket.create_connection((where.hostname, where.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._text, self._began = b"", 0.0
        selector.register(self._socket, selectors.EVENT_READ, self)

    def ask(self, model: str, tokens: int, seed: int) -> None:
        """Send a request."""
        fields = {
            "model": model, "prompt": PROMPT, "max_tokens": tokens, "seed": seed, "stream": True,
            "ignore_eos": True,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        body = json.dumps(fields).encode()
        head = f"POST {self._path} HTTP/1.1\r\nHost: {self._host}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._text, self._began = b"", time.perf_counter()
        self._socket.sendall(head.encode() + body)

    def read(self) -> bool:
        """Take what has come; return True if the answer is complete."""
        piece = self._socket.recv(1 << 16)
        if not piece:
            raise ConnectionError("The server has closed the connection.")
        if not self._text or b"data: " not in self._text:
            if b"data: " in self._text + piece:
                self.first.append(time.perf_counter() - self._began)
            self._text += piece
        else:
            self._text = self._text[-1000:] + piece
        if END not in self._text:
            return False
        if USAGE not in self._text:
            raise ConnectionError(f"The server answered {self._text[-300:].decode()}")
        self.tokens += int(self._text.rpartition(USAGE)[2].split(b",")[0].split(b"}")[0])
        return True


def main() -> int:
    url, model = sys.argv[1:3]
    clients, requests, tokens = map(int, sys.argv[3:6])
    selector = selectors.DefaultSelector()
    all_clients = [Client(url, selector) for _ in range(min(clients, requests))]
    began, processor = time.perf_counter(), time.process_time()
    for sent, client in enumerate(all_clients, start=1):
        client.ask(model, tokens, sent - 1)
    done = 0
    while done < requests:
        for key, _ in selector.select():
            client = key.data
            if client.read():
                done += 1
                if sent < requests:
                    client.ask(model, tokens, sent)
                    sent += 1
    figures = {
        "seconds": time.perf_counter() - began,
        "tokens": sum(client.tokens for client in all_clients),
        "processor": time.process_time() - processor,
        "first": [one for client in all_clients for one in client.first],
    }
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
