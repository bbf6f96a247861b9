"""An engine without a model: its pages hold token ids, and samples depend on what is visible.

Every sample hashes the token ids read back through the page tables. A page that was freed too
early, copied wrongly or written by two sequences therefore changes the tokens that follow.
"""

from collections import deque
from dataclasses import replace
from typing import Any
from zlib import crc32

from eightfold.engine.events import Event
from eightfold.engine.sampling_params import SamplingParams
from eightfold.engine.scheduling.draft_source import DraftSource
from eightfold.engine.scheduling.draft_tree import DraftTree
from eightfold.engine.scheduling.pages.page_pool import PageGroup
from eightfold.engine.scheduling.pages.page_tables import PageTables
from eightfold.engine.scheduling.scheduled_step import ScheduledTokens, StepPlan, StepResult
from eightfold.engine.scheduling.scheduler import Scheduler
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.engine.speculation.speculator import Speculator

PAGE_SIZE = 4
VOCABULARY = 23
EOS, PAUSE = 1, 2
EVERY_TOKEN = tuple(range(VOCABULARY))
PROMPT = [5, 6, 7, 8, 9, 10, 11]
UNWRITTEN = -7


def params(**changes: object) -> SamplingParams:
    """Return parameters of a sequence that samples 12 tokens, apart from ``changes``."""
    settings = {"stop_token_ids": (), "max_new_tokens": 12, "seed": 3, **changes}
    return SamplingParams(**settings)  # type: ignore[arg-type]


def sample(seed: int, position: int, visible: list[int]) -> int:
    """Return a token that depends on the seed, the position and every visible token."""
    return crc32(repr((seed, position, visible)).encode()) % VOCABULARY


def expected_token(seed: int, tokens: list[int], window: int) -> int:
    """Return the token that must follow ``tokens``, whatever happens to their pages."""
    return sample(seed, len(tokens), tokens + tokens[-window:])


class FakeEngine:
    """The engine's step loop over a scheduler and pages of token ids.

    Args:
        full: pages in the pool of the full-attention group.
        sliding: pages in the pool of the sliding-window group.
        window: tokens that a query of the sliding-window group sees.
        host: host pages behind each pool.
        lookahead: number of steps in flight besides the one being planned.
        draft_source: what proposes drafts, if anything.
    """

    def __init__(
        self,
        full: int = 64,
        sliding: int = 64,
        window: int = 6,
        host: int = 0,
        lookahead: int = 0,
        max_running: int = 4,
        max_step_tokens: int = 8,
        max_context: int = 48,
        prefix_cache: bool = True,
        rewind_tokens: int = 0,
        draft_source: DraftSource | None = None,
    ) -> None:
        groups = [
            PageGroup(None, full, host, rewind_tokens),
            PageGroup(window, sliding, host, rewind_tokens),
        ]
        self.page_tables = PageTables(groups, PAGE_SIZE, prefix_cache)
        self.scheduler = Scheduler(
            self.page_tables, max_running, max_step_tokens, max_context, (EOS,), draft_source
        )
        self.device = [_unwritten(group.page_count) for group in groups]
        self.host = [_unwritten(group.host_page_count) for group in groups]
        self.lookahead = lookahead
        self.in_flight: deque[tuple[StepPlan, StepResult]] = deque()
        self.last_token: dict[int, int] = {}
        # Of each sequence of the last step: right drafts, newest token, and drafts made behind it.
        self.behind: dict[int, tuple[int, int, list[int]]] = {}
        self.sampled: dict[int, list[int]] = {}

    def launch(self, plan: StepPlan) -> StepResult:
        """Make the page copies, write every scheduled token, then sample from what is visible."""
        for kind, g, source, target in plan.page_copies:
            if kind == "token":
                self._place(g, target)[target % PAGE_SIZE] = self._place(g, source)[
                    source % PAGE_SIZE
                ]
                continue
            origin = (self.host if kind == "restore" else self.device)[g]
            destination = (self.host if kind == "offload" else self.device)[g]
            destination[target] = list(origin[source])
        tokens = []
        scheduled = [self._moved(entry) for entry in plan.scheduled]
        for entry, planned in zip(scheduled, plan.scheduled, strict=True):
            seq = entry.seq
            ids = seq.tokens[entry.start : entry.start + entry.known_count]
            if entry.carried:
                ids = [*ids, self.last_token[seq.id]]
            elif planned.may_move:
                ids = [self.behind[seq.id][1]]
            entry.drafts.check()
            ids = [*ids, *entry.drafts.tokens]
            assert len(ids) == entry.count
            for g, table in enumerate(seq.tables):
                for position, token in enumerate(ids, entry.start):
                    page = table[position // PAGE_SIZE]
                    self.device[g][page][position % PAGE_SIZE] = token
        for entry in scheduled:
            if entry.samples:
                drawn = self.draw(entry)
                self.last_token[entry.seq.id] = drawn[-1]
                tokens += drawn
        accepted = None
        if plan.next_drafts or any(entry.may_move for entry in plan.scheduled):
            accepted = self._draft_behind(scheduled, list(tokens), plan.next_drafts)
        return StepResult(tokens, [0.5] * len(tokens), accepted)

    def _moved(self, entry: ScheduledTokens) -> ScheduledTokens:
        """Return a chained entry as the device sees it: at its true position, with its drafts."""
        if not entry.may_move:
            return entry
        accepted, _, drafts = self.behind[entry.seq.id]
        assert accepted <= entry.may_move
        assert len(drafts) == len(entry.drafts)
        return replace(entry, start=entry.start + accepted, drafts=DraftTree.line(drafts))

    def _draft_behind(
        self, scheduled: list[ScheduledTokens], draws: list[int], count: int
    ) -> list[int]:
        """Count right drafts, and make those of the next step, as a device would."""
        source: Any = self.scheduler.draft_source
        found = []
        self.behind.clear()
        for entry in scheduled:
            drawn, draws = draws[: entry.count], draws[entry.count :]
            kept = entry.drafts.kept_rows(drawn)
            found.append(len(kept) - 1)
            table = entry.seq.tables[0]
            tokens = [
                self.device[0][table[p // PAGE_SIZE]][p % PAGE_SIZE]
                for p in range(entry.start + len(kept))
            ]
            newest = drawn[len(kept) - 1]
            drafts = source.draft_behind(entry.seq.params.seed, [*tokens, newest], count)
            self.behind[entry.seq.id] = (len(kept) - 1, newest, drafts)
        return found

    def _place(self, group: int, slot: int) -> list[int]:
        """Return the page that holds a slot."""
        return self.device[group][slot // PAGE_SIZE]

    def draw(self, entry: ScheduledTokens) -> list[int]:
        """Return the token that follows each of the entry's rows that draw."""
        if not entry.drafts:
            return [self.sample(entry.seq, list(range(entry.start + entry.count)))]
        before = list(range(entry.start))
        paths = [entry.drafts.path(row) for row in range(entry.count)]
        return [self.sample(entry.seq, [*before, *(entry.start + r for r in p)]) for p in paths]

    def sample(self, seq: Sequence, places: list[int]) -> int:
        """Return the token that follows those at ``places``, as they are read back from pages."""
        visible = []
        for g, group in enumerate(self.page_tables.groups):
            low = 0 if group.window is None else max(0, len(places) - group.window)
            for p in places[low:]:
                page = seq.tables[g][p // PAGE_SIZE]
                assert page > 0, f"group {g} reads the freed page of token {p}"
                visible.append(self.device[g][page][p % PAGE_SIZE])
        assert UNWRITTEN not in visible
        return sample(seq.params.seed, len(places), visible)

    def launch_step(self) -> StepPlan | None:
        """Plan and launch a step: the first half of :meth:`step`."""
        return self._launch(self.scheduler.plan())

    def _launch(self, plan: StepPlan | None) -> StepPlan | None:
        if plan is not None:
            self.in_flight.append((plan, self.launch(plan)))
            if isinstance(self.scheduler.draft_source, Speculator):
                self.scheduler.draft_source.end_step(list(self.scheduler.queues.running), None)
        return plan

    def step(self) -> list[Event]:
        """Launch a step, and commit the oldest one if that is due.

        With lookahead and drafts, the oldest step is committed first, as in the real engine, except
        if the device drafts itself.
        """
        events: list[Event] = []
        plan = None
        if self.in_flight and self.scheduler.draft_source is not None:
            if self.lookahead:
                plan = self._launch(self.scheduler.plan_chained())
            if plan is None:
                events = self.commit_step()
        plan = plan or self.launch_step()
        if self.in_flight and (plan is None or len(self.in_flight) > self.lookahead):
            return events + self.commit_step()
        return events + self.scheduler.take_events()

    def commit_step(self) -> list[Event]:
        """Commit the oldest step in flight: the second half of :meth:`step`."""
        events = self.scheduler.commit(*self.in_flight.popleft())
        for event in events:
            self.sampled.setdefault(event.seq, []).extend(event.tokens)
        return events

    def fail(self) -> None:
        """Lose the steps in flight, and all that device and host hold."""
        self.in_flight.clear()
        for pool in (*self.device, *self.host):
            pool[:] = _unwritten(len(pool))
        self.scheduler.recover()

    def check(self) -> None:
        self.scheduler.check()

    def run(self, limit: int = 10_000) -> list[Event]:
        """Step until nothing can run, and return every event."""
        events: list[Event] = []
        for _ in range(limit):
            if not self.scheduler.has_work:
                return events
            events += self.step()
            self.check()
        raise AssertionError("the engine never runs out of work")


def _unwritten(pages: int) -> list[list[int]]:
    return [[UNWRITTEN] * PAGE_SIZE for _ in range(pages)]


def sampled_alone(tokens: list[int], params: SamplingParams, max_context: int = 48) -> list[int]:
    """Return what a sequence samples up to its pause or end if it runs alone with ample pages."""
    engine = FakeEngine(256, 256, max_context=max_context, prefix_cache=False)
    seq = engine.scheduler.submit(list(tokens), params)
    engine.run()
    return engine.sampled.get(seq, [])
