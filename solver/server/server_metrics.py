"""Figures of the server for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)


class ServerMetrics:
    """Counts requests and times them.

    Attributes:
        requests: requests by path and status.
        first_token: seconds from a request to the first token of its answer.
        seconds: seconds from a request to the end of its answer.
        prompt_tokens, completion_tokens: tokens of ended requests.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "eightfold_requests", "Requests that were answered.", ("path", "status"),
            registry=self._registry,
        )  # fmt: skip
        self.first_token = Histogram(
            "eightfold_first_token_seconds", "Seconds until an answer's first token.",
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "eightfold_request_seconds", "Seconds until an answer's end.",
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self.prompt_tokens = Counter(
            "eightfold_prompt_tokens", "Tokens of prompts.", registry=self._registry
        )
        self.completion_tokens = Counter(
            "eightfold_completion_tokens", "Tokens of answers.", registry=self._registry
        )
        self._engine_stats: Mapping[str, Any] = {}
        self._running = 0
        self._registry.register(self)

    def text(self, running: int, engine_stats: Mapping[str, Any]) -> bytes:
        """Return all figures in Prometheus' text format.

        Args:
            running: number of requests under way.
            engine_stats: what `Engine.stats()` returned.
        """
        self._running, self._engine_stats = running, engine_stats
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Yield the figures that `text` was given; called by the registry."""
        yield GaugeMetricFamily(
            "eightfold_requests_running", "Requests under way.", value=self._running
        )
        for name, value in self._engine_stats.items():
            if isinstance(value, list):  # one value for each page pool or depth of drafts
                gauge = GaugeMetricFamily(
                    f"eightfold_engine_{name}", f"The engine's {name}.", labels=("index",)
                )
                for index, number in enumerate(value):
                    gauge.add_metric((str(index),), number)
                yield gauge
            elif name == "cache_bytes":
                yield GaugeMetricFamily(
                    "eightfold_engine_cache_bytes", "Bytes of the KV cache.", value=value
                )
            elif isinstance(value, int | float):
                yield CounterMetricFamily(
                    f"eightfold_engine_{name}", f"The engine's counter {name}.", value=value
                )
