"""A runner without a model: pages that hold token ids, and tokens drawn from what is visible.

Every draw hashes the ids read back through the page tables, so a page that was freed too early,
copied wrongly or written by two sequences changes the tokens that follow.
"""

from collections import deque
from zlib import crc32

from eightfold.engine.events import Event
from eightfold.engine.sampling_params import SamplingParams
from eightfold.engine.scheduling.page_pool import PageGroup
from eightfold.engine.scheduling.page_tables import PageTables
from eightfold.engine.scheduling.scheduled_step import StepPlan, StepResult
from eightfold.engine.scheduling.scheduler import Scheduler

PAGE = 4
EOS, PAUSE = 1, 2
UNWRITTEN = -7


def draw(seed: int, position: int, visible: list[int]) -> int:
    return crc32(repr((seed, position, visible)).encode()) % 23


def expected(seed: int, tokens: list[int], window: int) -> int:
    """The token that follows ``tokens`` whatever happened to their pages."""
    return draw(seed, len(tokens), tokens + tokens[-window:])


class FakeEngine:
    """The engine's step loop over a scheduler and pages of token ids.

    Args:
        full, sliding: pages of each pool.
        host: host pages of each pool.
        lookahead: steps in flight beside the one being planned.
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
    ) -> None:
        groups = [PageGroup(None, full, host), PageGroup(window, sliding, host)]
        self.page_tables = PageTables(groups, PAGE, prefix_cache)
        self.scheduler = Scheduler(
            self.page_tables, max_running, max_step_tokens, max_context, stop_ids=(EOS,)
        )
        self.device = [[[UNWRITTEN] * PAGE for _ in range(group.page_count)] for group in groups]
        self.host = [[[UNWRITTEN] * PAGE for _ in range(group.host_page_count)] for group in groups]
        self.lookahead = lookahead
        self.flights: deque[tuple[StepPlan, StepResult]] = deque()
        self.last: dict[int, int] = {}
        self.history: dict[int, list[int]] = {}

    def launch(self, plan: StepPlan) -> StepResult:
        """Make the page copies, write every token, then draw from what is visible."""
        for kind, g, source, target in plan.page_copies:
            origin = (self.host if kind == "restore" else self.device)[g]
            (self.host if kind == "offload" else self.device)[g][target] = list(origin[source])
        tokens = []
        for entry in plan.scheduled:
            seq = entry.seq
            ids = seq.tokens[entry.start : entry.start + entry.count]
            if entry.carried:
                ids = [*ids, self.last[seq.id]]
            assert len(ids) == entry.count
            for g, table in enumerate(seq.tables):
                for position, token in enumerate(ids, entry.start):
                    self.device[g][table[position // PAGE]][position % PAGE] = token
        for entry in plan.scheduled:
            if entry.samples:
                token = self.draw(entry.seq, entry.start + entry.count)
                self.last[entry.seq.id] = token
                tokens.append(token)
        return StepResult(tokens, [0.5] * len(tokens))

    def draw(self, seq, position: int) -> int:
        visible = []
        for g, group in enumerate(self.page_tables.groups):
            low = 0 if group.window is None else max(0, position - group.window)
            for p in range(low, position):
                page = seq.tables[g][p // PAGE]
                assert page > 0, f"group {g} reads freed page of token {p} at {position}"
                visible.append(self.device[g][page][p % PAGE])
        assert UNWRITTEN not in visible
        return draw(seq.params.seed, position, visible)

    def depart(self) -> StepPlan | None:
        """Plan and launch a step; the first half of :meth:`step`."""
        plan = self.scheduler.plan()
        if plan is not None:
            self.flights.append((plan, self.launch(plan)))
        return plan

    def step(self) -> list[Event]:
        plan = self.depart()
        if self.flights and (plan is None or len(self.flights) > self.lookahead):
            return self.land()
        return self.scheduler.take_events()

    def land(self) -> list[Event]:
        """Commit the oldest step in flight."""
        events = self.scheduler.commit(*self.flights.popleft())
        for event in events:
            self.history.setdefault(event.seq, []).extend(event.tokens)
        return events

    def fail(self) -> None:
        """The steps in flight are lost, and with them all that device and host held."""
        self.flights.clear()
        for pool in (*self.device, *self.host):
            pool[:] = [[UNWRITTEN] * PAGE for _ in pool]
        self.scheduler.recover()

    def check(self) -> None:
        self.scheduler.check()

    def run(self, limit: int = 10_000) -> list[Event]:
        """Step until nothing can run; every event."""
        events: list[Event] = []
        for _ in range(limit):
            if not self.scheduler.has_work:
                return events
            events += self.step()
            self.check()
        raise AssertionError("the engine does not come to rest")


def undisturbed(tokens: list[int], params: SamplingParams, max_context: int = 48) -> list[int]:
    """What one sequence draws when it is alone and memory is plenty, up to its pause or end."""
    engine = FakeEngine(256, 256, max_context=max_context, prefix_cache=False)
    seq = engine.scheduler.submit(list(tokens), params)
    engine.run()
    return engine.history.get(seq, [])
