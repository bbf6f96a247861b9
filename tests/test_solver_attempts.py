"""Attempts, tools and votes over a scripted engine and kernels that keep the contracts (7 s).

The engine here only plays back texts; what is tested is everything around it.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from eightfold.engine import Event, SamplingParams
from eightfold.solver import Solver, SolverConfig, SolverError
from eightfold.solver.attempt import Attempt, CallTools, Ending, Feed, Limits, State, attempt_seed
from eightfold.solver.prompts import Prompts
from eightfold.solver.protocol import load_protocol

CONTROL = [
    "<pad>", "<eos>", "<bos>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>",
    "<|tool_response>", "<tool_response|>", '<|"|>', "<|think|>", "<|channel>", "<channel|>",
    "<|turn>", "<turn|>",
]  # fmt: skip


class Letters:
    """A tokenizer with one token a character and Gemma 4's control tokens."""

    eos_token_id = 1
    unk_token_id = None
    chat_template = "yes"

    def __init__(self) -> None:
        self.added_tokens_decoder = dict(enumerate(CONTROL))
        self._split = re.compile("|".join(map(re.escape, CONTROL)) + "|.", re.DOTALL)

    def encode(self, text: str, **options: Any) -> list[int]:
        pieces = self._split.findall(text)
        return [CONTROL.index(p) if p in CONTROL else 100 + ord(p) for p in pieces]

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        return "".join(CONTROL[i] if i < 100 else chr(i - 100) for i in ids)

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [self.decode([i]) for i in ids]

    def convert_tokens_to_ids(self, token: str) -> int:
        return CONTROL.index(token)

    def get_vocab(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(CONTROL)}

    def get_chat_template(self, tools: Any = None) -> str:
        return self.chat_template

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> str:
        text, open_turn = "", False
        for message in messages:
            role = {"assistant": "model"}.get(message["role"], message["role"])
            if role == "tool":
                text += f'<|tool_response>response:python{{value:<|"|>{message["content"]}'
                text += '<|"|>}<tool_response|>'
            elif message.get("tool_calls"):
                text, open_turn = text + "<|turn>model\n<|tool_call>call<tool_call|>", True
            else:
                text, open_turn = f"{text}<|turn>{role}\n{message['content']}<turn|>\n", False
        return text if open_turn else text + "<|turn>model\n"


TOKENIZER = Letters()
CALL = '<|tool_call>call:python{{code:<|"|>{}<|"|>}}<tool_call|><|tool_response>'


def call(*codes: str) -> str:
    return "".join(CALL.format(code).removesuffix("<|tool_response>") for code in codes) + (
        "<|tool_response>"
    )


def boxed(value: object) -> str:
    return f"So \\boxed{{{value}}}.<turn|>"


@dataclass
class Sequence_:  # noqa: N801
    tokens: list[int]
    params: SamplingParams
    script: Iterator[str]
    queue: list[int] = field(default_factory=list)
    status: str = "running"


class Playback:
    """Plays each attempt's texts, one turn after another; `scripts[i]` belongs to attempt i."""

    max_context = 100_000

    def __init__(self, scripts: list[list[str]], per_step: int = 7) -> None:
        self.scripts = [iter(script) for script in scripts]
        self.by_seed: dict[int, Iterator[str]] = {}
        self.sequences: dict[int, Sequence_] = {}
        self.events: list[Event] = []
        self.resumed: dict[int, list[str]] = {}
        self.per_step = per_step
        self.steps = 0
        self.broken: Callable[[int], Exception | None] = lambda step: None
        self.lock = threading.Lock()

    def submit(self, ids: list[int], params: SamplingParams) -> int:
        if len(ids) > self.max_context:
            raise ValueError(f"a prompt of {len(ids)} tokens needs too much room")
        script = self.by_seed.setdefault(params.seed, self._next())
        return self._add(list(ids), params, script)

    def _next(self) -> Iterator[str]:
        return self.scripts.pop(0) if self.scripts else iter(())

    def _add(self, ids: list[int], params: SamplingParams, script: Iterator[str]) -> int:
        seq = len(self.sequences)
        self.sequences[seq] = Sequence_(ids, params, script)
        self._write(self.sequences[seq])
        return seq

    def _write(self, sequence: Sequence_) -> None:
        sequence.queue = TOKENIZER.encode(next(sequence.script, "..."))

    def fork(self, seq: int, n: int, seeds: list[int]) -> list[int]:
        parent = self.sequences[seq]
        assert len(seeds) == n
        made = []
        for seed in seeds:
            script = self.by_seed.setdefault(seed, self._next())
            made.append(self._add(list(parent.tokens), parent.params, script))
        return made

    def resume(self, seq: int, ids: list[int]) -> bool:
        sequence = self.sequences[seq]
        if sequence.status == "finished":
            return False
        if sequence.status != "paused":
            raise ValueError(f"sequence {seq} is not paused")
        if len(sequence.tokens) + len(ids) > self.max_context:
            raise ValueError("no room")
        self.resumed.setdefault(seq, []).append(TOKENIZER.decode(ids))
        sequence.tokens += ids
        sequence.status = "running"
        self._write(sequence)
        return True

    def cancel(self, seq: int) -> bool:
        sequence = self.sequences[seq]
        if sequence.status == "finished":
            return False
        sequence.status = "finished"
        self.events.append(Event(seq, (), (), "finished", "cancelled"))
        return True

    def tokens(self, seq: int) -> list[int]:
        return list(self.sequences[seq].tokens)

    def has_work(self) -> bool:
        running = any(one.status == "running" for one in self.sequences.values())
        return bool(self.events) or running

    def step(self) -> list[Event]:
        self.steps += 1
        time.sleep(0.0005)
        if (error := self.broken(self.steps)) is not None:
            raise error
        events, self.events = self.events, []
        for seq, one in self.sequences.items():
            if one.status != "running":
                continue
            if not one.queue:
                one.queue = TOKENIZER.encode("~")
            new, one.queue = one.queue[: self.per_step], one.queue[self.per_step :]
            for index, token in enumerate(new):
                if token in one.params.pause_token_ids:
                    new, one.status = new[: index + 1], "paused"
                    break
            one.tokens += new
            reason = "pause" if one.status == "paused" else None
            if len(one.tokens) >= self.max_context:
                one.status, reason = "finished", "context"
            events.append(Event(seq, tuple(new), (0.5,) * len(new), one.status, reason))  # type: ignore[arg-type]
        return events


@dataclass(frozen=True)
class Ran:
    status: str
    text: str
    seconds: float = 0.01
    error: str | None = None


class Kernel:
    """Prints what it is given; `error`, `die`, `hang` and `lost` do what they say."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.stop = threading.Event()
        self.busy = False

    def execute(self, code: str, timeout: float) -> Ran:
        self.pool.ran.append(code)
        if code == "error":
            return Ran("error", "Traceback\nZeroDivisionError: x", error="ZeroDivisionError")
        if code == "die":
            return Ran("died", "KernelDied: gone")
        if code == "lost":
            raise RuntimeError("the pool can make no more kernels")
        if code == "hang":
            self.busy = True
            killed = self.stop.wait(timeout)
            self.busy = False
            return Ran("timeout", "killed" if killed else "TimeoutError: too long")
        return Ran("ok", f"out {code}")

    def kill(self) -> None:
        self.stop.set()

    def release(self) -> None:
        assert not self.busy
        self.pool.leased -= 1


class Pool:
    def __init__(self) -> None:
        self.leased = 0
        self.most = 0
        self.ran: list[str] = []

    def lease(self, timeout: float | None = None) -> Kernel:
        self.leased += 1
        self.most = max(self.most, self.leased)
        return Kernel(self)


def solve(
    scripts: list[list[str]], engine: Playback | None = None, **config: Any
) -> tuple[Any, Playback, Pool]:
    engine = engine or Playback(scripts)
    pool = Pool()
    settings = {"attempts": len(scripts), "time": 20.0, **config}
    with Solver(SolverConfig(**settings), engine=engine, tokenizer=TOKENIZER, pool=pool) as solver:
        result = solver.solve("What is 6 times 7?")
    assert pool.leased == 0, "every kernel was given back"
    assert all(one.status == "finished" for one in engine.sequences.values()), "no sequence is left"
    return result, engine, pool


def endings(result: Any) -> list[str]:
    return [record["ending"] for record in result.attempts]


# The state machine alone


def machine(**limits: int) -> Attempt:
    return Attempt(0, 1, load_protocol(TOKENIZER, Prompts()), Limits(**limits))


def write(attempt: Attempt, text: str) -> Any:
    ids = TOKENIZER.encode(text)
    attempt.receive(ids, [0.1] * len(ids))
    action = attempt.paused(1.0)
    attempt.check()
    return action


def test_states_from_thought_to_answer() -> None:
    attempt = machine()
    assert attempt.state is State.THINKING
    action = write(attempt, "<|channel>thought\nhm<channel|>" + call("1", "2"))
    assert isinstance(action, CallTools)
    assert [one.code for one in action.calls] == ["1", "2"]  # type: ignore[union-attr]
    assert attempt.state is State.CALLING
    attempt.wait()
    assert attempt.state is State.WAITING
    from eightfold.solver.attempt import CallRecord

    records = [CallRecord("1", "ok", "one"), CallRecord("2", "error", "two", 0.1, "NameError")]
    fed = attempt.results(records, 2.0)
    assert isinstance(fed, Feed)
    assert not fed.drop_last
    text = TOKENIZER.decode(fed.ids)
    assert text.count("response:python") == 2
    assert attempt.state is State.THINKING
    assert write(attempt, boxed(42)) is None
    assert attempt.state is State.ANSWERED
    assert attempt.ending is Ending.ANSWERED
    assert attempt.answer == 42
    signals = attempt.signals()
    assert (signals.calls, signals.errors, signals.answer) == (2, 1, 42)
    assert signals.entropy == pytest.approx(0.1)


def test_wrong_order_of_events_is_an_error() -> None:
    attempt = machine()
    with pytest.raises(AssertionError, match="thinking, not waiting"):
        attempt.results([], 1.0)
    write(attempt, boxed(1))
    with pytest.raises(AssertionError, match="answered, not thinking"):
        attempt.receive([1], [])
    with pytest.raises(AssertionError, match="has ended"):
        attempt.end(Ending.TIME, 2.0)


def test_missing_box_is_nudged_once() -> None:
    attempt = machine()
    action = write(attempt, "It is 42.<turn|>")
    assert isinstance(action, Feed)
    assert "\\boxed{}" in TOKENIZER.decode(action.ids)
    assert write(attempt, "Fine, 42.<turn|>") is None
    assert attempt.ending is Ending.NO_ANSWER
    assert attempt.state is State.GAVE_UP


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<|channel>thought\n\\boxed{1}<channel|>none<turn|>", None),
        ("\\boxed{1} or \\boxed{2}<turn|>", 2),
        ("\\boxed{2} or \\boxed{?}<turn|>", 2),
        ("\\boxed{100000}<turn|>", None),
    ],
)
def test_answer_comes_from_the_final_channel(text: str, found: int | None) -> None:
    attempt = machine()
    write(attempt, text)
    assert attempt.answer == found


def test_ended_attempt_keeps_the_answer_it_had_given() -> None:
    attempt = machine()
    attempt.receive(TOKENIZER.encode("\\boxed{5} and so"), [])
    attempt.end(Ending.TIME, 3.0)
    assert attempt.answer == 5
    cancelled = machine()
    cancelled.receive(TOKENIZER.encode("\\boxed{5} and so"), [])
    cancelled.end(Ending.CONSENSUS, 3.0)
    assert cancelled.answer is None
    cancelled.check()


def test_seeds_differ_and_are_fixed() -> None:
    seeds = {attempt_seed(run, key, i) for run in (0, 1) for key in ("a", "b") for i in range(8)}
    assert len(seeds) == 32
    assert attempt_seed(0, "a", 0) == attempt_seed(0, "a", 0)
    assert all(0 <= seed < 2**64 for seed in seeds)


# Attempts together


def test_vote_of_tool_using_attempts() -> None:
    result, engine, pool = solve([[call("6*7"), boxed(42)], [boxed(41)], [call("x"), boxed(42)]])
    assert result.answer == 42
    assert result.votes == {42: 2, 41: 1}
    assert sorted(pool.ran) == ["6*7", "x"]
    assert '<|"|>out 6*7<|"|>' in engine.resumed[0][0]
    assert endings(result) == ["answered"] * 3
    assert result.stopped == "all ended"
    assert result.tokens == sum(record["tokens"] for record in result.attempts) > 0
    turn = result.attempts[0]["turns"][0]
    assert turn["calls"][0]["output"] == "out 6*7"
    assert turn["text"].endswith("<|tool_response>")
    assert turn["appended"] == TOKENIZER.encode(engine.resumed[0][0])


def test_prompt_is_submitted_once_and_forked() -> None:
    engine = Playback([[boxed(1)]] * 4)
    submitted = []
    original = engine.submit
    engine.submit = lambda ids, params: submitted.append(ids) or original(ids, params)  # type: ignore
    result, _, _ = solve([[boxed(1)]] * 4, engine)
    assert len(submitted) == 1
    assert list(result.prompt) == submitted[0]
    assert "from 0 to 99999" in TOKENIZER.decode(submitted[0])


def test_agreement_cancels_the_rest_within_one_step() -> None:
    engine = Playback([[boxed(7)], [boxed(7)], ["long " * 10_000]])
    cancelled_at = []
    original = engine.cancel
    engine.cancel = lambda seq: cancelled_at.append(engine.steps) or original(seq)  # type: ignore
    result, _, _ = solve([[]] * 3, engine, early_stop=2)
    assert result.answer == 7
    assert result.stopped == "agreement"
    assert endings(result)[2] == "cancelled by consensus"
    steps_to_agree = -(-len(TOKENIZER.encode(boxed(7))) // engine.per_step)
    assert max(cancelled_at) == steps_to_agree


def test_uncatchable_lead_stops_too() -> None:
    scripts = [[boxed(7)], [boxed(7)], [boxed(7)], [boxed(8)], ["long " * 10_000]]
    result, _, _ = solve(scripts, early_stop=4)
    assert result.stopped == "lead"
    assert result.answer == 7


def test_without_early_stop_every_attempt_ends_by_itself() -> None:
    result, _, _ = solve([[boxed(7)]] * 5, early_stop=0)
    assert endings(result) == ["answered"] * 5


def test_agreement_interrupts_a_running_cell() -> None:
    began = time.monotonic()
    scripts = [[call("hang"), boxed(1)], ["slow " * 30 + boxed(7)], ["slow " * 30 + boxed(7)]]
    result, _, _ = solve(scripts, early_stop=2, tool_timeout=15.0)
    assert endings(result)[0] == "cancelled by consensus"
    assert result.answer == 7
    assert time.monotonic() - began < 10


def test_time_ends_tokens_and_cells() -> None:
    result, _, _ = solve([["x" * 100_000], [call("hang")], [boxed(3)]], time=0.3, early_stop=0)
    assert endings(result) == ["time", "time", "answered"]
    assert result.answer == 3
    assert result.stopped == "time"


def test_malformed_calls_get_an_error_back() -> None:
    bad = "<|tool_call>call:python{code:1}<tool_call|><|tool_response>"
    result, engine, pool = solve([[bad, "<|tool_response>", boxed(2)]])
    assert result.answer == 2
    assert "ToolError: python takes one string argument named code" in engine.resumed[0][0]
    assert "ToolError: there was no call before the response" in engine.resumed[0][1]
    assert pool.most == 0
    assert result.attempts[0]["error_kinds"] == ["malformed", "malformed"]
    assert (result.calls, result.errors) == (2, 2)


def test_several_calls_in_one_turn_share_a_kernel_in_order() -> None:
    result, engine, pool = solve([[call("a", "error", "b"), boxed(2)]])
    assert pool.ran == ["a", "error", "b"]
    assert pool.most == 1
    text = engine.resumed[0][0]
    assert text.index("out a") < text.index("ZeroDivisionError") < text.index("out b")
    assert result.attempts[0]["error_kinds"] == ["ZeroDivisionError"]


def test_call_ended_by_the_end_token_is_answered_in_its_place() -> None:
    ended = call("a").replace("<|tool_response>", "<turn|>")
    result, engine, _ = solve([[ended, boxed(2)]])
    assert result.answer == 2
    grown = TOKENIZER.decode(engine.sequences[1].tokens)
    assert "<tool_call|><|tool_response>response:python{value:" in grown
    assert "<tool_call|><turn|>" not in grown


def test_turns_are_bounded() -> None:
    result, _, pool = solve([[call("a")] * 10], turns=3)
    assert endings(result) == ["turns used up"]
    assert pool.ran == ["a"] * 3
    assert result.answer is None
    assert solve([[call("a"), boxed(1)]], turns=0)[0].answer is None


def test_context_full_by_tokens_and_by_tool_output() -> None:
    engine = Playback([["x" * 10_000], [call("a"), boxed(1)]])
    engine.max_context = 1200
    result, _, _ = solve([[]] * 2, engine)
    assert endings(result)[0] == "context full"
    long = call("y" * 700)
    engine = Playback([[long, boxed(1)]])
    engine.max_context = len(result.prompt) + len(TOKENIZER.encode(long)) + 500
    result, _, _ = solve([[]], engine)
    assert endings(result) == ["context full"]
    assert result.attempts[0]["detail"] == "no room"


# Faults


def test_dying_kernel_is_told_and_the_attempt_goes_on() -> None:
    result, engine, _ = solve([[call("die"), call("ok"), boxed(4)]])
    assert result.answer == 4
    assert "KernelDied" in engine.resumed[0][0]
    assert result.attempts[0]["error_kinds"] == ["died"]


def test_failing_sandbox_ends_one_attempt() -> None:
    result, _, _ = solve([[call("lost"), boxed(1)], [boxed(2)]])
    assert endings(result) == ["sandbox failed", "answered"]
    assert "no more kernels" in result.attempts[0]["detail"]
    assert result.answer == 2


def test_exception_in_one_attempt_spares_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Attempt.paused

    def paused(self: Attempt, now: float) -> Any:
        if self.index == 0:
            raise KeyError("boom")
        return original(self, now)

    monkeypatch.setattr(Attempt, "paused", paused)
    result, _, _ = solve([[boxed(1)], [boxed(2)]])
    assert endings(result) == ["solver fault", "answered"]
    assert "boom" in result.attempts[0]["detail"]
    assert any("boom" in fault for fault in result.faults)
    assert result.answer == 2


def test_one_failed_step_is_survived() -> None:
    engine = Playback([[boxed(1)]] * 2)
    engine.broken = lambda step: RuntimeError("CUDA error: illegal") if step == 2 else None
    result, _, _ = solve([[]] * 2, engine)
    assert result.answer == 1
    assert result.faults == ("RuntimeError: CUDA error: illegal",)


def test_broken_engine_gives_the_best_answer_so_far_and_the_next_problem_runs() -> None:
    engine = Playback([[boxed(9)], ["long " * 1000], [boxed(5)], [boxed(5)]])
    engine.broken = lambda step: MemoryError("full") if 10 <= step < 13 else None
    pool = Pool()
    config = SolverConfig(attempts=2)
    with Solver(config, engine=engine, tokenizer=TOKENIZER, pool=pool) as solver:
        first = solver.solve("one")
        second = solver.solve("two")
    assert first.answer == 9
    assert endings(first) == ["answered", "engine failed"]
    assert first.faults == ("MemoryError: full",) * 3
    assert second.answer == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_dead_engine_thread_does_not_hang_the_solver() -> None:
    engine = Playback([["x" * 10_000]])

    def has_work() -> bool:
        if engine.steps >= 3:
            raise SystemError("gone")
        return bool(engine.sequences)

    engine.has_work = has_work  # type: ignore[method-assign]
    solver = Solver(SolverConfig(attempts=1), engine=engine, tokenizer=TOKENIZER, pool=Pool())
    result = solver.solve("one")
    solver.close()
    assert endings(result) == ["engine failed"]
    assert solver.solve_or_nothing("two").stopped == "failed"


def test_refused_fork_leaves_one_attempt() -> None:
    engine = Playback([[boxed(1)]])

    def fork(seq: int, n: int, seeds: list[int]) -> list[int]:
        raise ValueError("no forks today")

    engine.fork = fork  # type: ignore[method-assign]
    result, _, _ = solve([[]] * 3, engine)
    assert endings(result) == ["answered", "engine refused", "engine refused"]
    assert result.answer == 1


# Use


def test_bad_problems_are_one_sentence() -> None:
    engine = Playback([[boxed(1)]])
    engine.max_context = 2000
    with Solver(
        SolverConfig(attempts=1), engine=engine, tokenizer=TOKENIZER, pool=Pool()
    ) as solver:
        with pytest.raises(SolverError, match="empty"):
            solver.solve("  \n")
        with pytest.raises(SolverError, match="does not fit"):
            solver.solve("x" * 3000)
        assert solver.solve("fine").answer == 1


@pytest.mark.parametrize(
    "bad",
    [{"attempts": 0}, {"attempts": -8}, {"early_stop": -1}, {"time": 0}, {"time": float("nan")},
     {"rule": "best"}, {"top_p": 0}, {"temperature": -1}, {"low": 5, "high": 4}, {"kernels": 0},
     {"turns": -1}, {"seed": -1}, {"max_tokens": 0}, {"output_limit": 3}],
)  # fmt: skip
def test_bad_settings_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises(SolverError, match=next(iter(bad))):
        SolverConfig(**bad)


def test_several_problems_share_the_engine() -> None:
    engine = Playback([])
    engine._next = lambda: iter([call("a"), boxed(6)])  # type: ignore[method-assign]
    pool = Pool()
    results: list[Any] = []
    config = SolverConfig(attempts=3, early_stop=0)
    with Solver(config, engine=engine, tokenizer=TOKENIZER, pool=pool) as solver:
        threads = [
            threading.Thread(target=lambda i=i: results.append(solver.solve(f"problem {i}")))
            for i in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [result.answer for result in results] == [6] * 5
    assert len({record["seed"] for result in results for record in result.attempts}) == 15


def test_progress_and_attempts_are_reported() -> None:
    seen: list[Any] = []
    ended: list[Any] = []
    engine = Playback([["x" * 700 + boxed(1)], [boxed(1)]])
    with Solver(
        SolverConfig(attempts=2, early_stop=0), engine=engine, tokenizer=TOKENIZER, pool=Pool()
    ) as solver:
        solver.solve("p", on_progress=seen.append, on_attempt=ended.append, interval=0.01)
    assert [record["attempt"] for record in ended] == [1, 0]
    assert seen[-1].votes == {1: 2}
    assert seen[-1].states == {"answered": 2}
    assert [progress.tokens for progress in seen] == sorted(progress.tokens for progress in seen)


def test_interrupt_ends_the_problem_and_is_passed_on() -> None:
    engine = Playback([["x" * 100_000]])

    def interrupt(progress: Any) -> None:
        raise KeyboardInterrupt

    with Solver(
        SolverConfig(attempts=1), engine=engine, tokenizer=TOKENIZER, pool=Pool()
    ) as solver:
        with pytest.raises(KeyboardInterrupt):
            solver.solve("p", on_progress=interrupt, interval=0.01)
        solver.loop.call(lambda: None)
        assert engine.sequences[0].status == "finished"


def test_works_where_an_event_loop_runs() -> None:
    async def notebook() -> Any:
        return solve([[call("a"), boxed(42)]])[0]

    assert asyncio.run(notebook()).answer == 42
