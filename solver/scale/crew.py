"""The workers of a run on a Ray cluster: placed, fed one by one, replaced when they are lost."""

from __future__ import annotations

import re
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from eightfold.common.error_text import first_line, one_line

from ..evaluation.machine_failure import Cause, MachineFailure
from ..solver_config import SolverError
from .crew_messages import (
    CrewEvent,
    CrewPlan,
    CrewReport,
    HeadLostError,
    ProblemEnded,
    ProblemsLost,
    Started,
    StartFailed,
    Task,
    WorkersLostError,
    WorkerState,
)
from .ray_cluster import Node, RayCluster
from .solver_worker import SolverWorker

HOLD_SECONDS = 0.25
"""Longest time that a worker waits for something to report."""

NODE_SECONDS = 2.0
"""Seconds between two looks at the nodes of the cluster."""

OVERDUE_SECONDS = 180.0
"""Time beyond that of its problem after which a worker that does not answer counts as hung."""

CLOSE_SECONDS = 8.0
"""Time for workers to end their solvers before they are killed."""

_GUESSES = re.compile(r"\s*(?:Some common causes|There are some potential root causes)")
"""The words with which Ray's message about a lost worker begins to guess; the rest is cut."""

MAX_STARTS = 3
"""Starts in a row, without one that succeeds, after which no worker is placed on a node."""


@dataclass
class Member:
    """A worker as the crew sees it.

    Attributes:
        number: its number.
        node: where it is.
        actor: Ray's handle.
        starting: reference to its start, or None once that has ended.
        pending: reference to the exchange that it has not answered yet, or None.
        held: the tasks that it solves, by id, each with the time by which it is overdue.
        solved: number of problems that it has solved.
        speed: tokens per second.
        failed: problems in a row at which its machine failed.
    """

    number: int
    node: Node
    actor: Any
    starting: Any
    pending: Any = None
    held: dict[str, tuple[Task, float]] = field(default_factory=dict)
    solved: int = 0
    speed: float = 0.0
    failed: int = 0

    @property
    def alone(self) -> bool:
        """True if it solves a problem that nothing may run beside."""
        return any(task.alone for task, _ in self.held.values())

    def state(self) -> WorkerState:
        """Return a snapshot."""
        state = "starting" if self.starting is not None else "solving" if self.held else "ready"
        held = tuple(self.held)
        return WorkerState(self.number, self.node.address, state, held, self.solved, self.speed)


class Crew:
    """Places workers on the cluster and hands tasks to them.

    Args:
        plan: settings of the crew.

    Raises:
        SolverError: if the cluster cannot be used; see `RayCluster`.
    """

    def __init__(self, plan: CrewPlan) -> None:
        self._plan = plan
        self._cluster = RayCluster(plan)
        import ray

        self._ray = ray
        self._actor = ray.remote(SolverWorker)
        self._members: list[Member] = []
        self._waiting: deque[Task] = deque()
        self._events: list[CrewEvent] = []
        self._notes: list[str] = []
        self._failed_starts: dict[str, int] = {}  # in a row, by node
        self._excluded: dict[str, str] = {}  # nodes that get no worker, and why
        self._number = self._lost = self._back = 0
        self._ever_ready = False
        self._looked = 0.0

    def ready(self) -> None:
        """Place the workers; they start while `exchange` is called."""
        self._look_at_nodes()

    def placed(self) -> Crew:
        """Place the workers and return the crew itself."""
        self.ready()
        return self

    def exchange(self, tasks: list[Task], seconds: float) -> CrewReport:
        """Hand out tasks and return what happened; wait at most so long if nothing did.

        Raises:
            HeadLostError: if the head of the cluster does not answer.
            SolverError: if no worker can be started for a reason that is the user's input.
            WorkersLostError: if no worker can be started on any node.
        """
        if self._cluster.head_lost:
            raise HeadLostError("The head of the cluster does not answer.")
        self._waiting.extend(tasks)
        if time.monotonic() - self._looked >= NODE_SECONDS:
            self._look_at_nodes()
        self._hand_out()
        references = [one.starting or one.pending for one in self._members]
        references = [one for one in references if one is not None]
        if references and not self._events:
            self._ray.wait(references, num_returns=1, timeout=seconds)
            done, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
            self._take(set(done))
        elif not references:
            time.sleep(min(seconds, HOLD_SECONDS))
        self._end_overdue()
        return self._report()

    def close(self) -> None:
        """End all workers, then the connection."""
        with suppress(Exception):
            closing = [one.actor.close.remote() for one in self._members if one.starting is None]
            if closing and not self._cluster.head_lost:
                self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
            for member in self._members:
                self._ray.kill(member.actor)
        self._members.clear()
        self._cluster.close()

    # Placement

    def _look_at_nodes(self) -> None:
        """Place workers where there is room; forget those of nodes that are gone."""
        if not self._cluster.head_answers():
            return  # or else the next line would wait for it
        nodes = {node.id: node for node in self._cluster.nodes()}
        for member in list(self._members):
            if member.node.id not in nodes:
                self._lose(member, Cause.NODE, f"node {member.node.address} is gone")
        wanted = self._plan.workers
        free = {
            node.id: self._cluster.room(node) - sum(m.node.id == node.id for m in self._members)
            for node in nodes.values()
            if node.id not in self._excluded
        }
        while free and (wanted is None or len(self._members) < wanted):
            chosen = max(free, key=lambda id_: free[id_])
            if free[chosen] < 1:
                break
            free[chosen] -= 1
            self._place(nodes[chosen])
        if not self._members and self._excluded and not any(free.values()):
            raise WorkersLostError(next(iter(self._excluded.values())))
        self._looked = time.monotonic()

    def _place(self, node: Node) -> None:
        self._number += 1
        options = self._cluster.actor_options(node)
        actor = self._actor.options(**options).remote(self._number, node.address, self._plan)
        self._members.append(Member(self._number, node, actor, actor.start.remote()))

    def _started(self, member: Member, answer: Started | StartFailed) -> None:
        member.starting = None
        if isinstance(answer, Started):
            try:
                self._cluster.check_versions(member.node.address, answer.versions)
            except SolverError as error:  # the node has joined since the run began
                self._exclude(member.node, f"{str(error).rstrip('.')}; it gets no worker.")
                self._discard(member)
                return
            self._ever_ready = True
            self._failed_starts.pop(member.node.id, None)
            self._back += self._back < self._lost
            return
        if answer.wrong_input and not self._ever_ready:
            raise SolverError(answer.text)
        self._start_failed(member, answer.text)

    def _start_failed(self, member: Member, why: str) -> None:
        failed = self._failed_starts.get(member.node.id, 0) + 1
        self._failed_starts[member.node.id] = failed
        self._notes.append(f"worker {member.number} on {member.node.address} did not start: {why}")
        if failed >= MAX_STARTS:
            self._exclude(member.node, f"No worker starts on {member.node.address}: {why}")
        self._discard(member)

    def _exclude(self, node: Node, why: str) -> None:
        self._excluded[node.id] = why
        self._notes.append(why)

    # Tasks

    def _hand_out(self) -> None:
        """Give waiting tasks to free workers, and ask each idle one what has happened."""
        given: dict[int, list[Task]] = {}
        reserved = self._hand_out_lone(given)
        while self._waiting and not self._waiting[0].alone:
            free = [one for one in self._members if one.number != reserved and self._room(one) > 0]
            if not free:
                break
            task = self._waiting.popleft()
            self._give(min(free, key=lambda one: len(one.held)), task, given)
        for member in self._members:
            if member.starting is None and member.pending is None:
                tasks = given.get(member.number, [])
                member.pending = member.actor.exchange.remote(tasks, HOLD_SECONDS)

    def _hand_out_lone(self, given: dict[int, list[Task]]) -> int | None:
        """Give tasks that must be alone to empty workers; return the number of one to empty."""
        for task in [one for one in self._waiting if one.alone]:
            self._waiting.remove(task)
            able = [one for one in self._members if one.starting is None and not one.alone]
            empty = [one for one in able if not one.held and one.pending is None]
            if empty:
                self._give(empty[0], task, given)
                continue
            self._waiting.append(task)
            if able:
                return min(able, key=lambda one: len(one.held)).number
        return None

    def _room(self, member: Member) -> int:
        """Return how many tasks a worker can be given at this moment."""
        if member.starting is not None or member.pending is not None or member.alone:
            return 0
        return self._plan.parallel - len(member.held)

    def _give(self, member: Member, task: Task, given: dict[int, list[Task]]) -> None:
        overdue = time.monotonic() + task.seconds + OVERDUE_SECONDS
        member.held[task.problem.id] = (task, overdue)
        given.setdefault(member.number, []).append(task)

    def _take(self, done: set[Any]) -> None:
        """Take the answers that have arrived."""
        for member in list(self._members):
            reference = member.starting or member.pending
            if reference not in done:
                continue
            try:
                answer = self._ray.get(reference)
            except Exception as error:
                cause, detail = self._why_lost(error)
                if member.starting is not None and cause is not Cause.NODE:
                    self._start_failed(member, detail)
                else:
                    self._lose(member, cause, detail)
                continue
            if member.starting is not None:
                self._started(member, answer)
            else:
                member.pending = None
                self._take_events(member, *answer)

    def _take_events(self, member: Member, events: list[CrewEvent], speed: float) -> None:
        member.speed = speed
        self._events += events
        broken = ""
        for event in events:
            if isinstance(event, ProblemEnded):
                member.held.pop(event.id, None)
                member.solved += 1
                member.failed = 0 if event.failure is None else member.failed + 1
                if event.failure is not None and (
                    event.failure.cause is Cause.ENGINE or member.failed >= MAX_STARTS
                ):
                    broken = event.failure.detail
        if broken:
            self._lose(member, Cause.ENGINE, broken)

    # Losses

    def _lose(self, member: Member, cause: Cause, detail: str) -> None:
        """Give back what a worker held, and end it; another one will take its place."""
        self._lost += 1
        beside = len(member.held) > 1 and cause in (Cause.WORKER, Cause.OVERDUE)
        shared = beside or cause is Cause.ENGINE
        failure = MachineFailure(cause, detail, member.number, member.node.address, shared)
        if member.held:
            self._events.append(ProblemsLost(dict.fromkeys(member.held, failure)))
        where = f"worker {member.number} on {member.node.address}"
        self._notes.append(f"{where}: {cause}: {one_line(detail, 160)}")
        self._discard(member)
        self._looked = 0.0  # place another one at once

    def _discard(self, member: Member) -> None:
        self._members.remove(member)
        with suppress(Exception):
            self._ray.kill(member.actor)

    def _why_lost(self, error: Exception) -> tuple[Cause, str]:
        """Return what an exception of Ray means."""
        from ray import exceptions

        text = str(error)
        gone = (
            exceptions.ActorUnavailableError,
            exceptions.NodeDiedError,
            exceptions.ObjectLostError,
        )
        node = isinstance(error, gone) or "node died" in text or "node was terminated" in text
        lines = [line.strip() for line in text.splitlines() if "exit" in line.lower()]
        detail = _GUESSES.split(lines[0] if lines else first_line(error))[0]
        return (Cause.NODE if node else Cause.WORKER), one_line(detail, 300)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for member in list(self._members):
            if any(now > overdue for _, overdue in member.held.values()):
                self._lose(member, Cause.OVERDUE, "its problem's time was up long ago")

    def _report(self) -> CrewReport:
        events, self._events = tuple(self._events), []
        notes, self._notes = tuple(self._notes), []
        free = sum(
            max(0, self._plan.parallel - len(one.held))
            for one in self._members
            if one.starting is None and not one.alone
        )
        return CrewReport(
            events,
            max(0, free - len(self._waiting)),
            tuple(one.state() for one in self._members),
            self._lost,
            self._back,
            notes,
        )
