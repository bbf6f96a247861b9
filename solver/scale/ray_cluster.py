"""A Ray cluster: how to connect to it, its nodes, and the room for workers on them."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from eightfold.common.counted_noun import counted
from eightfold.common.error_text import first_line, one_line

from ..solver_config import SolverError
from .crew_messages import CrewPlan
from .node_versions import node_versions, version_difference

DEFAULT_PORT = 6379
"""The port of a head that `ray start --head` started."""

ANSWER_SECONDS = 4.0
"""Time for a head to accept a connection when a run begins."""

JOIN_SECONDS = 30.0
"""Time for a head to let this process join its cluster."""

PROBE_SECONDS = 120.0
"""Time for each node to say what is installed there."""

HEAD_CHECKS = 3
"""Checks, one a second, that a head may miss before it counts as lost."""

CORES_PER_WORKER = 2
"""CPU cores for each worker, if it has no GPU and their number is not given: one for the engine,
and one for the Python kernels."""

STORE_BYTES = 512 << 20
"""Object store of a cluster of this machine alone; records of attempts take a few MB."""


@dataclass(frozen=True)
class Node:
    """A node that is alive.

    Attributes:
        id: Ray's id.
        address: its address.
        cpus, gpus: numbers of CPU cores and GPUs that Ray may give away there.
    """

    id: str
    address: str
    cpus: int
    gpus: int


class RayCluster:
    """A connection to a cluster.

    Args:
        plan: settings of the crew.

    Attributes:
        gpus: GPUs of a worker.
        versions: versions on this node.

    Raises:
        SolverError: if Ray is not installed, nobody answers at the address, nodes have other
            versions than this one, or the workers need more than there is.
    """

    def __init__(self, plan: CrewPlan) -> None:
        if find_spec("ray") is None:
            raise SolverError("Workers need Ray; install eightfold[ray].")
        import ray

        self._ray = ray
        self._plan = plan
        self._ours = not ray.is_initialized()
        if self._ours:
            self._connect()
        self.versions = node_versions()
        try:
            nodes = self.nodes()
            self.gpus = plan.gpus
            if self.gpus is None:
                self.gpus = int(any(node.gpus for node in nodes))
            self._check_room(nodes)
            self._check_nodes(nodes)
            self._address = ray.get_runtime_context().gcs_address
            self._watch = HeadWatch(self._address)
        except BaseException:
            self.close()
            raise

    @property
    def head_lost(self) -> bool:
        """True if the head does not answer any more, or did not for a while."""
        return self._watch.lost

    def head_answers(self) -> bool:
        """Return whether the head accepts a connection at this moment."""
        return _answers(self._address, 2.0)

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive."""
        return [
            Node(
                one["NodeID"],
                one["NodeManagerAddress"],
                int(one["Resources"].get("CPU", 0)),
                int(one["Resources"].get("GPU", 0)),
            )
            for one in self._ray.nodes()
            if one["Alive"]
        ]

    def room(self, node: Node) -> int:
        """Return the number of workers that have room on a node."""
        if self.gpus:
            return node.gpus // self.gpus
        if self._plan.workers is not None:
            return node.cpus
        return max(1, node.cpus // CORES_PER_WORKER) if node.cpus else 0

    def actor_options(self, node: Node) -> dict[str, Any]:
        """Return the options of a worker's actor on a node."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return {
            "num_cpus": 1,
            "num_gpus": self.gpus,
            "max_restarts": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False),
        }

    def close(self) -> None:
        """End the connection, and the cluster if it was started for it."""
        watch = getattr(self, "_watch", None)
        if watch is not None:
            watch.stop()
        if self._ours:
            self._ray.shutdown()

    def _connect(self) -> None:
        address = self._plan.address
        for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
            os.environ.setdefault(name, "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if address is None:
            options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
            self._ray.init(address="local", **options)
            return
        if "://" in address:
            raise SolverError(
                f"{address} is not the address of a head; give HOST:PORT, and run the command on a "
                "machine of the cluster."
            )
        if address != "auto":
            address = _reachable(address)
        failures: list[Exception] = []

        def join() -> None:
            try:
                self._ray.init(address=address, **options)
            except Exception as error:
                failures.append(error)

        # What listens there need not be a head, and Ray would wait for minutes.
        joining = threading.Thread(target=join, name="join", daemon=True)
        joining.start()
        joining.join(JOIN_SECONDS)
        if joining.is_alive():
            raise SolverError(f"What answers at {address} is not the head of a Ray cluster.")
        if failures:
            self._ray.shutdown()
            raise SolverError(_why_not_connected(address, failures[0])) from failures[0]

    def _check_room(self, nodes: list[Node]) -> None:
        wanted = self._plan.workers
        room = sum(self.room(node) for node in nodes)
        if wanted is None and room:
            return
        if wanted is not None and wanted <= room:
            return
        if self.gpus:
            there = sum(node.gpus for node in nodes)
            needs = "A worker needs" if wanted in (None, 1) else f"{wanted} workers need"
            gpus = counted((wanted or 1) * self.gpus, "GPU")
            where = f", on nodes of at most {max(node.gpus for node in nodes)}" if there else ""
            raise SolverError(
                f"{needs} {gpus} ({self.gpus} each), but the cluster has {there}{where}; "
                "give fewer --workers or --gpus-per-worker."
            )
        there = sum(node.cpus for node in nodes)
        raise SolverError(
            f"{counted(wanted or 1, 'worker')} would take as many CPU cores, but the cluster has "
            f"{there}; give fewer --workers."
        )

    def _check_nodes(self, nodes: list[Node]) -> None:
        """Ask each node what is installed there."""
        from ray import exceptions
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ask = self._ray.remote(num_cpus=0, max_retries=0)(node_versions)
        asked = {}
        for node in nodes:
            strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
            asked[node.address] = ask.options(scheduling_strategy=strategy).remote()
        for address, answer in asked.items():
            try:
                there: Mapping[str, str] = self._ray.get(answer, timeout=PROBE_SECONDS)
            except (exceptions.TaskUnschedulableError, exceptions.NodeDiedError):
                continue  # the node has gone, which is no fault of the user's
            except Exception as error:
                missing = "ModuleNotFoundError" in str(error) or "No module" in str(error)
                told = f"fails: {one_line(error, 200)}"
                why = "has no eightfold; install it" if missing else told
                raise SolverError(f"Node {address} {why}.") from error
            self.check_versions(address, there)

    def check_versions(self, address: str, there: Mapping[str, str]) -> None:
        """Raise SolverError if a node has other versions than this one."""
        difference = version_difference(self.versions, there)
        if difference is not None:
            raise SolverError(
                f"Node {address} has {difference}; install the same versions on all nodes."
            )


class HeadWatch:
    """Checks each second, on a thread of its own, whether the head accepts connections.

    Ray's own calls block while it does not, and end the process after a minute.

    Args:
        address: HOST:PORT of the head.

    Attributes:
        lost: True once it has missed several checks in a row.
    """

    def __init__(self, address: str) -> None:
        self.lost = False
        self._address = address
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, name="head", daemon=True).start()

    def stop(self) -> None:
        """Check no longer."""
        self._stopped.set()

    def _watch(self) -> None:
        missed = 0
        while not self.lost and not self._stopped.wait(1.0):
            missed = 0 if _answers(self._address, 2.0) else missed + 1
            self.lost = missed >= HEAD_CHECKS


def _reachable(address: str) -> str:
    """Return HOST:PORT for an address at which something listens."""
    host, colon, port = address.rpartition(":")
    if not colon:
        host, port = address, str(DEFAULT_PORT)
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise SolverError(f"{address!r} is not an address; give HOST:PORT of the cluster's head.")
    full = f"{host}:{port}"
    deadline = time.monotonic() + ANSWER_SECONDS
    while not _answers(full, 2.0):
        if time.monotonic() > deadline or not _resolves(host):
            raise SolverError(
                f"Nobody answers at {full}; start a head there with ray start --head, or give its "
                "address."
            )
        time.sleep(0.2)
    return full


def _resolves(host: str) -> bool:
    with suppress(OSError):
        return bool(socket.getaddrinfo(host, None))
    return False


def _answers(address: str, timeout: float) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout):
            return True
    except OSError:
        return False


def _why_not_connected(address: str, error: Exception) -> str:
    text = str(error)
    if "ersion mismatch" in text:
        told = [line.strip() for line in text.splitlines() if ":" in line and line.strip()]
        return f"The cluster at {address} has other versions: {one_line('; '.join(told), 300)}."
    if address == "auto":
        return "No Ray cluster runs on this machine; start one with ray start, or give an address."
    return f"The cluster at {address} cannot be joined: {one_line(first_line(error), 200)}."
