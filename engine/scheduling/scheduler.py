"""Continuous batching: decides what each step computes, and takes in what it sampled.

Prefill, decode and resume are the same: a sequence has tokens that are not computed yet, one or
many. They are mixed in one step under a token budget. Nothing that a step in flight uses is freed:
cancelling, pausing and finishing raise the sequence's epoch, and ``commit`` frees its pages later.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from ..events import Event, Status
from ..sampling_params import SamplingParams
from .draft_source import DraftSource
from .drafts.draft_steps import DraftSteps
from .engine_counters import EngineCounters
from .forks import Forks
from .pages.page_tables import PageTables
from .preemption import Preemption
from .rewinds import Rewinds
from .run_queues import RunQueues
from .scheduled_step import ScheduledTokens, StepPlan, StepResult
from .sequence import Sequence, SequenceStatus
from .step_planner import StepPlanner


class Scheduler:
    """Schedules sequences over the pages of one :class:`PageTables`.

    Args:
        page_tables: page tables without sequences.
        max_running: maximum number of sequences in one step.
        max_step_tokens: maximum number of tokens in one step.
        max_context: maximum number of tokens of one sequence.
        stop_ids: end tokens of a sequence whose parameters name none.
        draft_source: what proposes drafts; ``None`` for steps without drafts.

    Raises:
        ValueError: if the pools could not hold one sequence of ``max_context`` tokens alone.
    """

    def __init__(
        self,
        page_tables: PageTables,
        max_running: int,
        max_step_tokens: int,
        max_context: int,
        stop_ids: Iterable[int] = (),
        draft_source: DraftSource | None = None,
    ) -> None:
        for g, pool in enumerate(page_tables.pools):
            need = page_tables.pages_needed(g, max_context, max_step_tokens)
            if need > pool.capacity:
                raise ValueError(
                    f"A sequence of {max_context} tokens needs {need} pages of "
                    f"{page_tables.page_size} tokens, but the pool has {pool.capacity}; lower "
                    "max_context or enlarge the pool."
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
        self.draft_steps = DraftSteps(
            page_tables, self.queues, self.counters, max_running, max_step_tokens, max_context
        )
        self.forks = Forks(page_tables, self.queues, self.counters)
        self.preemption = Preemption(page_tables, self.queues, self.counters)
        self.rewinds = Rewinds(page_tables, self.queues, self.counters)
        self.draft_source = draft_source
        self._steps_in_flight: deque[StepPlan] = deque()
        self._events: list[Event] = []
        self._next_id = 0

    # ---- requests

    def submit(self, tokens: list[int], params: SamplingParams) -> int:
        """Queue a sequence and return its number.

        Raises:
            ValueError: if the prompt is empty or could never fit.
        """
        if not tokens:
            raise ValueError("A sequence needs at least one token.")
        need = len(tokens) + (params.max_new_tokens or 1)
        if need > self.max_context:
            raise ValueError(
                f"A prompt of {len(tokens)} tokens with {params.max_new_tokens or 'at least 1'} to "
                f"come needs room for {need}, but a sequence may hold at most {self.max_context}."
            )
        seq = self._new_sequence(tokens, len(tokens), params)
        self.queues.waiting.append(seq)
        return seq.id

    def fork(self, seq_id: int, seeds: list[int]) -> list[int]:
        """Create one sequence per seed, each with the tokens that ``seq_id`` has now.

        The forks share its full pages and copy the last partial page. Each fork computes the last
        token again, for its logits. Forks of a paused sequence are paused. If the original is still
        being prefilled, its forks wait for it.

        Raises:
            ValueError: if ``seq_id`` is not live or a seed is invalid; nothing is forked then.
        """
        parent = self._live(seq_id)
        children = []
        for params in [replace(parent.params, seed=seed) for seed in seeds]:
            child = self._new_sequence(list(parent.tokens), parent.prompt_length, params)
            child.sampled = parent.sampled
            child.parent, child.fork_length = parent.id, len(child.tokens)
            child.page_keys = list(parent.page_keys)
            attached = self.forks.attach(child, parent)
            if parent.status is SequenceStatus.PAUSED:
                child.parent, child.status = None, SequenceStatus.PAUSED
                self.queues.paused.append(child)
            elif attached:
                self.queues.ready.append(child)
            else:
                self.queues.waiting.append(child)
            children.append(child.id)
        return children

    def resume(self, seq_id: int, tokens: list[int]) -> bool:
        """Append ``tokens`` to a paused sequence and let it run again.

        Returns:
            False if the sequence has finished.

        Raises:
            ValueError: if it is not paused, or if the tokens do not fit; it stays paused then.
        """
        if self._has_finished(seq_id):
            return False
        seq = self._live(seq_id)
        if seq.status is not SequenceStatus.PAUSED:
            raise ValueError(f"Sequence {seq_id} is {seq.status.value}, not paused.")
        need = len(seq.tokens) + len(tokens) + 1
        if need > self.max_context:
            raise ValueError(
                f"Sequence {seq_id} with {len(tokens)} more tokens needs room for {need}, "
                f"but may hold at most {self.max_context}."
            )
        seq.tokens.extend(tokens)
        self.queues.resume(seq)
        return True

    def rewind(self, seq_id: int, length: int) -> bool:
        """Drop a sequence's tokens from position ``length`` on, and pause it.

        What is computed of the tokens before stays. Tokens that steps in flight sample are dropped,
        and pages that such steps write are given back when these steps are committed.

        Returns:
            False if the sequence has finished.

        Raises:
            ValueError: if there never was such a sequence, or if it has fewer than ``length``
                tokens or none would be left.
        """
        if self._has_finished(seq_id):
            return False
        seq = self._live(seq_id)
        self.rewinds.begin(seq, length)
        return True

    def cancel(self, seq_id: int) -> bool:
        """Finish a sequence now. Its pages are freed when no step in flight uses them.

        Returns:
            False if the sequence has finished already.

        Raises:
            ValueError: if there never was such a sequence.
        """
        if self._has_finished(seq_id):
            return False
        seq = self._live(seq_id)
        self._events.append(Event(seq.id, status="finished", reason="cancelled"))
        self.counters.cancelled += 1
        self._finish(seq)
        if not seq.steps_in_flight:
            self._free(seq)
        return True

    def tokens(self, seq_id: int) -> list[int]:
        """Return a copy of a live sequence's tokens.

        Raises:
            ValueError: if the sequence is not live.
        """
        return list(self._live(seq_id).tokens)

    @property
    def has_work(self) -> bool:
        """True if a step would compute, commit or report something."""
        return bool(self._events or self._steps_in_flight or self.queues.has_runnable)

    # ---- steps

    def plan(self) -> StepPlan | None:
        """Return the next step, or ``None`` if nothing can run before the next commit."""
        self.forks.attach_waiting(self.sequences)
        scheduled = self.planner.choose_tokens()
        while not scheduled:
            if self._steps_in_flight or not self.queues.has_runnable:
                return None
            self.preemption.preempt_one()
            scheduled = self.planner.choose_tokens()
        if self.draft_source is not None:
            scheduled = self.draft_steps.add(scheduled, self.draft_source)
        return self._begin(scheduled)

    def plan_chained(self) -> StepPlan | None:
        """Return a step whose drafts the device makes behind the step in flight.

        ``None`` if that must be committed before another can be planned.
        """
        scheduled = self.draft_steps.chain(self._steps_in_flight, self.draft_source)
        return self._begin(scheduled) if scheduled else None

    def _begin(self, scheduled: list[ScheduledTokens]) -> StepPlan:
        """Return the step of these entries, which is in flight from now on."""
        plan = StepPlan(scheduled, *self.page_tables.take_copies())
        for entry in scheduled:
            seq, start, drafts = entry.seq, entry.start, len(entry.drafts.tokens)
            end = start + entry.count - drafts
            if seq.max_computed > start:
                self.counters.recomputed_tokens += min(end, seq.max_computed) - start
            if seq.max_computed < end:
                seq.max_computed = end
            seq.computed = end
            seq.tokens_in_flight += end - start
            seq.drafts_in_flight += drafts
            seq.steps_in_flight += 1
            seq.pending += entry.samples
        if self.draft_source is not None and all(entry.drafts for entry in scheduled):
            plan.next_drafts = self.draft_source.device_drafts([e.seq for e in scheduled])
        self.counters.steps += 1
        self.counters.computed_tokens += plan.token_count
        self._steps_in_flight.append(plan)
        return plan

    def commit(self, plan: StepPlan, result: StepResult) -> list[Event]:
        """Take in what the oldest step in flight sampled.

        Sequences pause or finish as their tokens say, and pages that are no longer needed are
        freed.

        Returns:
            All events since the last call of this method or of :meth:`take_events`.
        """
        if not self._steps_in_flight or self._steps_in_flight[0] is not plan:
            raise AssertionError("steps are committed in the order in which they were planned")
        self._steps_in_flight.popleft()
        self.page_tables.host.free(plan.freed_host_pages)
        tokens, entropies, drawn = result.tokens, result.entropies, 0
        tables, finished = self.page_tables, SequenceStatus.FINISHED
        for index, entry in enumerate(plan.scheduled):
            seq, drafts = entry.seq, len(entry.drafts.tokens)
            seq.steps_in_flight -= 1
            seq.tokens_in_flight -= entry.count - drafts
            begin = drawn
            if entry.samples:
                drawn += 1 + drafts
            kept = tokens[begin:drawn], entropies[begin:drawn]
            if drafts:
                seq.drafts_in_flight -= drafts
                accepted = None if result.accepted is None else result.accepted[index]
                kept = self.draft_steps.keep_drawn(entry, *kept, accepted, self.draft_source)
                self.draft_steps.move_later(entry, len(kept[0]) - 1, self._steps_in_flight)
            if seq.rewind_length is not None:
                self.rewinds.end(seq)
            if kept[0] and entry.epoch == seq.epoch:
                seq.pending -= 1
                self._append(entry, *kept)
            else:
                self.counters.dropped_tokens += len(kept[0])
            if seq.status is not finished:
                if drafts and not seq.steps_in_flight:
                    tables.shrink(seq)
                tables.keep_up(seq)
            elif not seq.steps_in_flight:
                self._free(seq)
        assert drawn == len(tokens) == len(entropies), "others than the entries drew tokens"
        return self.take_events()

    def take_events(self) -> list[Event]:
        """Return and clear the events not reported yet, such as those of cancellations."""
        events, self._events = self._events, []
        return events

    def recover(self) -> None:
        """Drop all steps in flight after a step failed, and every page with them.

        What is on the device is no longer trusted. Every sequence keeps its tokens and is computed
        again when it runs; paused sequences stay paused.
        """
        self._steps_in_flight.clear()
        for seq in list(self.sequences.values()):
            seq.steps_in_flight = seq.tokens_in_flight = seq.drafts_in_flight = seq.pending = 0
            seq.epoch += 1
            self.page_tables.release(seq)  # before anything could be cached
            if seq.status is SequenceStatus.FINISHED:
                self._free(seq)
        self.page_tables.reset()
        for seq in (*self.queues.running, *self.queues.ready):
            self.queues.requeue(seq)

    def _append(self, entry: ScheduledTokens, tokens: list[int], entropies: list[float]) -> None:
        """Append drawn tokens until one pauses or finishes the sequence, and report them."""
        seq, drawn, deepest = entry.seq, len(tokens), 0
        count, reason = seq.extend(tokens, self.max_context)
        pauses = reason == "pause"
        self.counters.sampled_tokens += count
        if entry.drafts.tokens:
            self.counters.dropped_tokens += drawn - count
            self.draft_steps.drop_behind(seq, drawn - count, ends=reason is not None)
            deepest = max(entry.drafts.depths)
        status: Status = "paused" if pauses else "finished" if reason else "running"
        felt = tuple(entropies[:count]) if seq.params.entropy else ()
        event = Event(seq.id, tuple(tokens[:count]), felt, status, reason, deepest, drawn - 1)
        self._events.append(event)
        if pauses:
            self.counters.pauses += 1
            seq.epoch += 1
            seq.pending = 0
            self.queues.pause(seq)
        elif reason:
            self.counters.finished += 1
            self._finish(seq)

    def _finish(self, seq: Sequence) -> None:
        self.queues.remove(seq)
        seq.epoch += 1
        seq.pending = 0
        seq.status = SequenceStatus.FINISHED

    def _free(self, seq: Sequence) -> None:
        self.page_tables.prefix_cache.register(seq)
        self.page_tables.release(seq)
        if self.draft_source is not None:
            self.draft_source.forget(seq)
        del self.sequences[seq.id]

    # ---- sequences

    def _new_sequence(
        self, tokens: list[int], prompt_length: int, params: SamplingParams
    ) -> Sequence:
        stops = self.stop_ids if params.stop_token_ids is None else frozenset(params.stop_token_ids)
        stops -= frozenset(params.pause_token_ids)
        seq = Sequence(self._next_id, tokens, prompt_length, params, stops)
        self._next_id += 1
        self.sequences[seq.id] = seq
        return seq

    def _has_finished(self, seq_id: int) -> bool:
        seq = self.sequences.get(seq_id)
        if seq is None:
            return 0 <= seq_id < self._next_id
        return seq.status is SequenceStatus.FINISHED

    def _live(self, seq_id: int) -> Sequence:
        seq = self.sequences.get(seq_id)
        if seq is None or seq.status is SequenceStatus.FINISHED:
            raise ValueError(f"There is no live sequence {seq_id}.")
        return seq

    # ---- invariants

    def check(self) -> None:
        """Assert every invariant of queues, sequences and page tables."""
        self.queues.check()
        queued = set(self.queues)
        for seq in self.sequences.values():
            finished = seq.status is SequenceStatus.FINISHED
            assert finished != (seq in queued), "a live sequence is in no queue"
            assert not finished or seq.steps_in_flight, "a finished sequence was not freed"
            assert 0 <= seq.tokens_in_flight <= seq.computed, "more is in flight than planned"
            assert len(seq.tokens) <= self.max_context, "a sequence outgrew the context"
            assert seq.rewind_length is None or seq.steps_in_flight, "a rewind was not ended"
            assert finished or seq.committed <= len(seq.tokens), "more is computed than is there"
            if seq.status is SequenceStatus.RUNNING and not seq.steps_in_flight:
                assert seq.uncomputed >= 1, "a sequence runs but has nothing to compute"
        entries = [entry for plan in self._steps_in_flight for entry in plan.scheduled]
        in_flight = [entry.seq for entry in entries]
        for seq in set(in_flight) | set(self.sequences.values()):
            assert in_flight.count(seq) == seq.steps_in_flight, "steps in flight are miscounted"
        for entry in entries:
            count = entry.count + entry.may_move
            assert self.page_tables.covers(entry.seq, entry.start, count), (
                "pages of a step in flight were freed"
            )
        host_pages = [page for plan in self._steps_in_flight for page in plan.freed_host_pages]
        self.page_tables.check(self.sequences.values(), host_pages)
