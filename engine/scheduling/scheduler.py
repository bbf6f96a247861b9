"""Decides what each step computes. Pure Python: no tensors, no torch.

A sequence's work is ``length - computed``. Prefill, decode and resume are the same thing with
different amounts of it, and are mixed in one step under a token budget. Nothing in flight is ever
freed: cancelling, pausing and ending raise the sequence's epoch, and ``commit`` frees.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from ..engine_config import SamplingParams
from .engine_counters import EngineCounters
from .events import Event
from .page_tables import PageTables
from .run_queues import RunQueues
from .scheduled_step import StepPlan, StepResult
from .sequence import Sequence, Status
from .step_planner import StepPlanner


class Scheduler:
    """Queues of sequences over one :class:`PageTables`.

    Args:
        memory: the page tables.
        max_running: most sequences in one step.
        max_step_tokens: most tokens in one step.
        max_context: most tokens of one sequence.
        stop_ids: end tokens of a sequence that names none of its own.

    Raises:
        ValueError: where one sequence of ``max_context`` tokens could not be held alone.
    """

    def __init__(
        self,
        page_tables: PageTables,
        max_running: int,
        max_step_tokens: int,
        max_context: int,
        stop_ids: Iterable[int] = (),
    ) -> None:
        for g, pool in enumerate(page_tables.pools):
            need = page_tables.pages_needed(g, max_context, max_step_tokens)
            if need > pool.capacity:
                raise ValueError(
                    f"a sequence of {max_context} tokens needs {need} pages of "
                    f"{page_tables.page_size} tokens, but the pool has {pool.capacity}; lower "
                    "max_context or enlarge it"
                )
        self.page_tables = page_tables
        self.max_context = max_context
        self.stop_ids = frozenset(stop_ids)
        self.counters = EngineCounters()
        self.sequences: dict[int, Sequence] = {}
        self.queues = RunQueues()
        self.planner = StepPlanner(
            page_tables, self.queues, self.counters, max_running, max_step_tokens, max_context
        )
        self._steps_in_flight: deque[StepPlan] = deque()
        self._events: list[Event] = []
        self._next_id = 0

    # ---- requests

    def submit(self, tokens: list[int], params: SamplingParams) -> int:
        """Queue a sequence and return its number.

        Raises:
            ValueError: where the prompt is empty or it could never fit.
        """
        if not tokens:
            raise ValueError("a sequence needs at least one token")
        need = len(tokens) + (params.max_new_tokens or 1)
        if need > self.max_context:
            raise ValueError(
                f"a prompt of {len(tokens)} tokens with {params.max_new_tokens or 'at least 1'} to "
                f"come needs room for {need}, but a sequence may hold at most {self.max_context}"
            )
        seq = self._new(tokens, len(tokens), params)
        self.queues.waiting.append(seq)
        return seq.id

    def fork(self, seq_id: int, seeds: list[int]) -> list[int]:
        """One more sequence per seed, each with the tokens that ``seq_id`` has now.

        They share its full pages and copy the last partial one; the last token is computed again
        by each, for its logits. Forks of a paused sequence are paused. Where the original is still
        being prefilled, they wait for it.

        Raises:
            ValueError: where ``seq_id`` is not live or a seed is none; nothing is forked then.
        """
        parent = self._live(seq_id)
        children = []
        for params in [replace(parent.params, seed=seed) for seed in seeds]:
            child = self._new(list(parent.tokens), parent.prompt_length, params)
            child.sampled = parent.sampled
            child.parent, child.fork_length = parent.id, len(child.tokens)
            child.page_keys = list(parent.page_keys)
            attached = self._attach(child, parent)
            if parent.status is Status.PAUSED:
                child.parent, child.status = None, Status.PAUSED
                self.queues.paused.append(child)
            elif attached:
                self.queues.ready.append(child)
            else:
                self.queues.waiting.append(child)
            children.append(child.id)
        return children

    def resume(self, seq_id: int, tokens: list[int]) -> bool:
        """Append ``tokens`` to a paused sequence and let it go on; False where it has ended.

        Raises:
            ValueError: where it is not paused, or the tokens do not fit: it stays paused.
        """
        seq = self.sequences.get(seq_id)
        if (seq is None and 0 <= seq_id < self._next_id) or (seq and seq.status is Status.FINISHED):
            return False
        seq = self._live(seq_id)
        if seq.status is not Status.PAUSED:
            raise ValueError(f"sequence {seq_id} is {seq.status.value}, not paused")
        need = len(seq.tokens) + len(tokens) + 1
        if need > self.max_context:
            raise ValueError(
                f"sequence {seq_id} with {len(tokens)} more tokens needs room for {need}, "
                f"but may hold at most {self.max_context}"
            )
        seq.tokens.extend(tokens)
        self.queues.unpause(seq)
        return True

    def cancel(self, seq_id: int) -> bool:
        """End a sequence now; False where it has ended. Its pages go when no step uses them."""
        seq = self.sequences.get(seq_id)
        if seq is None or seq.status is Status.FINISHED:
            if not 0 <= seq_id < self._next_id:
                raise ValueError(f"there is no sequence {seq_id}")
            return False
        self._events.append(Event(seq.id, status="finished", reason="cancelled"))
        self.counters.cancelled += 1
        self._finish(seq)
        if not seq.steps_in_flight:
            self._free(seq)
        return True

    def tokens(self, seq_id: int) -> list[int]:
        """A copy of a live sequence's tokens.

        Raises:
            ValueError: where it is not live.
        """
        return list(self._live(seq_id).tokens)

    @property
    def has_work(self) -> bool:
        """Whether a step would do something."""
        return bool(self._events or self._steps_in_flight or self.queues.wanting)

    # ---- plan

    def plan(self) -> StepPlan | None:
        """The next step's work, or ``None`` where nothing can run before a commit."""
        self._attach_forks()
        planner = self.planner
        scheduled = planner.build()
        while not scheduled:
            if self._steps_in_flight or not self.queues.wanting:
                return None
            planner.reclaim()
            scheduled = planner.build()
        plan = StepPlan(scheduled, planner.page_copies, planner.freed_host_pages)
        planner.page_copies, planner.freed_host_pages = [], []
        for entry in scheduled:
            seq = entry.seq
            end = entry.start + entry.count
            self.counters.recomputed_tokens += max(0, min(end, seq.high_water) - entry.start)
            seq.high_water = max(seq.high_water, end)
            seq.computed = end
            seq.tokens_in_flight += entry.count
            seq.steps_in_flight += 1
            seq.pending += entry.samples
        self.counters.steps += 1
        self.counters.computed_tokens += plan.token_count
        self._steps_in_flight.append(plan)
        return plan

    # ---- commit

    def commit(self, plan: StepPlan, result: StepResult) -> list[Event]:
        """Take in what the oldest step in flight drew; end, pause and free what it decides."""
        if not self._steps_in_flight or self._steps_in_flight[0] is not plan:
            raise AssertionError("steps are committed in the order they were planned")
        self._steps_in_flight.popleft()
        self.page_tables.free_host(plan.freed_host_pages)
        draws = iter(zip(result.tokens, result.entropies, strict=True))
        for entry in plan.scheduled:
            seq = entry.seq
            seq.steps_in_flight -= 1
            seq.tokens_in_flight -= entry.count
            if entry.samples:
                token, entropy = next(draws)
                if entry.epoch == seq.epoch:
                    seq.pending -= 1
                    self._append(seq, token, entropy)
                else:
                    self.counters.dropped_tokens += 1
            if seq.status is not Status.FINISHED:
                self.page_tables.register(seq)
                self.page_tables.trim(seq)
            elif not seq.steps_in_flight:
                self._free(seq)
        return self.take_events()

    def take_events(self) -> list[Event]:
        """Events that wait to be told, a cancellation's for instance."""
        events, self._events = self._events, []
        return events

    def _append(self, seq: Sequence, token: int, entropy: float) -> None:
        seq.tokens.append(token)
        seq.sampled += 1
        self.counters.sampled_tokens += 1
        limit = seq.params.max_new_tokens
        reason = None
        if token in seq.stop_ids:
            reason = "eos"
        elif limit is not None and seq.sampled >= limit:
            reason = "length"
        elif len(seq.tokens) >= self.max_context:
            reason = "context"
        pauses = reason is None and token in seq.params.pause_token_ids
        self._events.append(
            Event(
                seq.id,
                (token,),
                (entropy,) if seq.params.entropy else (),
                "finished" if reason else "paused" if pauses else "running",
                "pause" if pauses else reason,
            )
        )
        if reason:
            self.counters.finished += 1
            self._finish(seq)
        elif pauses:
            self.counters.pauses += 1
            seq.epoch += 1
            seq.pending = 0
            self.queues.pause(seq)

    def _finish(self, seq: Sequence) -> None:
        self.queues.remove(seq)
        seq.epoch += 1
        seq.pending = 0
        seq.status = Status.FINISHED

    def _free(self, seq: Sequence) -> None:
        self.page_tables.register(seq)
        self.page_tables.release(seq)
        del self.sequences[seq.id]

    # ---- forks

    def _attach_forks(self) -> None:
        """Forks whose original has computed their tokens get its pages; orphans stand alone."""
        for child in [seq for seq in self.queues.waiting if seq.parent is not None]:
            parent = self.sequences.get(child.parent) if child.parent is not None else None
            if parent is not None and self._attach(child, parent):
                self.queues.waiting.remove(child)
                self.queues.ready.append(child)
            elif parent is None or parent.status not in (Status.WAITING, Status.RUNNING):
                child.parent = None
            elif parent.computed >= child.fork_length - 1 and parent.status is Status.RUNNING:
                child.parent = None  # its pages are gone behind the window, or no page is left

    def _attach(self, child: Sequence, parent: Sequence) -> bool:
        copies = self.page_tables.attach_fork(child, parent)
        if copies is None:
            return False
        self.planner.page_copies += copies
        child.parent = None
        self.counters.forked_tokens += child.computed
        return True

    # ---- faults

    def recover(self) -> None:
        """After a failed step: what is on the device is not trusted, every token is kept.

        All pages are given back and recomputed when needed; paused sequences stay paused.
        """
        self._steps_in_flight.clear()
        self.planner.page_copies.clear()
        self.planner.freed_host_pages.clear()
        for seq in list(self.sequences.values()):
            seq.steps_in_flight = seq.tokens_in_flight = seq.pending = 0
            seq.epoch += 1
            self.page_tables.release(seq)
            if seq.status is Status.FINISHED:
                del self.sequences[seq.id]
        self.page_tables.reset()
        for seq in (*self.queues.running, *self.queues.ready):
            self.queues.send_back(seq)

    # ---- proof

    def check(self) -> None:
        """Assert every invariant of queues, sequences and memory."""
        self.queues.check()
        queued = set(self.queues)
        for seq in self.sequences.values():
            finished = seq.status is Status.FINISHED
            assert finished != (seq in queued), "a live sequence is in no queue"
            assert not finished or seq.steps_in_flight, "a finished sequence was not freed"
            assert 0 <= seq.tokens_in_flight <= seq.computed, "more is in flight than planned"
            assert len(seq.tokens) <= self.max_context, "a sequence outgrew the context"
            if seq.status is Status.RUNNING and not seq.steps_in_flight:
                assert seq.work >= 1, "a sequence runs but has nothing to compute"
        flying = [entry.seq for plan in self._steps_in_flight for entry in plan.scheduled]
        for seq in set(flying) | set(self.sequences.values()):
            assert flying.count(seq) == seq.steps_in_flight, "steps in flight are miscounted"
        for entry in (entry for plan in self._steps_in_flight for entry in plan.scheduled):
            assert self.page_tables.holds(entry.seq, entry.start, entry.count), (
                "pages of a step in flight were given back"
            )
        moving = [page for plan in self._steps_in_flight for page in plan.freed_host_pages]
        self.page_tables.check(self.sequences.values(), [*moving, *self.planner.freed_host_pages])

    # ---- small parts

    def _new(self, tokens: list[int], prompt_length: int, params: SamplingParams) -> Sequence:
        stops = self.stop_ids if params.stop_token_ids is None else frozenset(params.stop_token_ids)
        stops -= frozenset(params.pause_token_ids)
        seq = Sequence(self._next_id, tokens, prompt_length, params, stops)
        self._next_id += 1
        self.sequences[seq.id] = seq
        return seq

    def _live(self, seq_id: int) -> Sequence:
        seq = self.sequences.get(seq_id)
        if seq is None or seq.status is Status.FINISHED:
            raise ValueError(f"there is no live sequence {seq_id}")
        return seq
