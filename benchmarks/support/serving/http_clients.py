"""Clients of a server in a process of their own, so that they do not share the server's threads.

    python http_clients.py URL MODEL CLIENTS REQUESTS TOKENS

Prints one line of JSON: seconds, tokens, and for each request the seconds to its first text.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai

PROMPT = "What is the remainder when $5^{8985}$ is divided by 66?"


def ask(client: Any, model: str, tokens: int, seed: int) -> tuple[int, float]:
    """Stream one answer; return its tokens and the seconds to its first text."""
    began, first, used = time.perf_counter(), 0.0, 0
    for event in client.completions.create(
        model=model,
        prompt=PROMPT,
        max_tokens=tokens,
        seed=seed,
        stream=True,
        stream_options={"include_usage": True},
    ):
        if not first:
            first = time.perf_counter() - began
        if event.usage is not None:
            used = event.usage.completion_tokens
    return used, first


def main() -> int:
    url, model = sys.argv[1:3]
    clients, requests, tokens = map(int, sys.argv[3:6])
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    client.models.list()  # so that the connection and the imports are not timed
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        results = list(pool.map(lambda seed: ask(client, model, tokens, seed), range(requests)))
    seconds = time.perf_counter() - began
    print(
        json.dumps(
            {
                "seconds": seconds,
                "tokens": sum(used for used, _ in results),
                "first": [first for _, first in results],
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
