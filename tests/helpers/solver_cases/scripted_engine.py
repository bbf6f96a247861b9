"""A scripted engine, tokenizer and kernel pool, to test what surrounds a model.

The engine plays back given texts, one turn after another, and otherwise behaves as the real one.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from eightfold.engine import Event, SamplingParams
from eightfold.solver import Result, Solver, SolverConfig

CONTROL_TOKENS = [
    "<pad>", "<eos>", "<bos>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>",
    "<|tool_response>", "<tool_response|>", '<|"|>', "<|think|>", "<|channel>", "<channel|>",
    "<|turn>", "<turn|>",
]  # fmt: skip


class CharacterTokenizer:
    """A tokenizer with one token for each character, and Gemma 4's control tokens."""

    eos_token_id = 1
    unk_token_id = None
    chat_template = "yes"

    def __init__(self) -> None:
        self.added_tokens_decoder = dict(enumerate(CONTROL_TOKENS))
        self._split = re.compile("|".join(map(re.escape, CONTROL_TOKENS)) + "|.", re.DOTALL)

    def encode(self, text: str, **options: Any) -> list[int]:
        pieces = self._split.findall(text)
        return [CONTROL_TOKENS.index(p) if p in CONTROL_TOKENS else 100 + ord(p) for p in pieces]

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        return "".join(CONTROL_TOKENS[i] if i < 100 else chr(i - 100) for i in ids)

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [self.decode([i]) for i in ids]

    def convert_tokens_to_ids(self, token: str) -> int:
        return CONTROL_TOKENS.index(token)

    def get_vocab(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(CONTROL_TOKENS)}

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


TOKENIZER = CharacterTokenizer()
CALL = '<|tool_call>call:python{{code:<|"|>{}<|"|>}}<tool_call|><|tool_response>'


def call(*codes: str) -> str:
    """Return a turn that calls the tool once for each code."""
    return "".join(CALL.format(code).removesuffix("<|tool_response>") for code in codes) + (
        "<|tool_response>"
    )


def boxed(value: object) -> str:
    """Return a turn that answers."""
    return f"So \\boxed{{{value}}}.<turn|>"


@dataclass
class ScriptedSequence:
    """A sequence and the turns that it will write."""

    tokens: list[int]
    params: SamplingParams
    script: Iterator[str]
    queue: list[int] = field(default_factory=list)
    status: Literal["running", "paused", "finished"] = "running"


class ScriptedEngine:
    """Plays back each attempt's texts, one turn after another.

    Args:
        scripts: the texts of each attempt; an attempt without a text writes "...".
        per_step: tokens that a sequence gets in one step.

    Attributes:
        resumed: the texts appended to each sequence.
        failure: returns the error that a step raises, given its number, or None.
    """

    max_context = 100_000
    device = torch.device("cpu")

    def __init__(self, scripts: list[list[str]], per_step: int = 7) -> None:
        self.scripts = [iter(script) for script in scripts]
        self.by_seed: dict[int, Iterator[str]] = {}
        self.sequences: dict[int, ScriptedSequence] = {}
        self.events: list[Event] = []
        self.resumed: dict[int, list[str]] = {}
        self.per_step = per_step
        self.steps = 0
        self.failure: Callable[[int], Exception | None] = lambda step: None

    def submit(self, ids: list[int], params: SamplingParams) -> int:
        if len(ids) > self.max_context:
            raise ValueError(f"A prompt of {len(ids)} tokens needs too much room.")
        script = self.by_seed.setdefault(params.seed, self.next_script())
        return self._add(list(ids), params, script)

    def next_script(self) -> Iterator[str]:
        return self.scripts.pop(0) if self.scripts else iter(())

    def _add(self, ids: list[int], params: SamplingParams, script: Iterator[str]) -> int:
        seq = len(self.sequences)
        self.sequences[seq] = ScriptedSequence(ids, params, script)
        self._next_turn(self.sequences[seq])
        return seq

    def _next_turn(self, sequence: ScriptedSequence) -> None:
        sequence.queue = TOKENIZER.encode(next(sequence.script, "..."))

    def fork(self, seq: int, n: int, seeds: list[int]) -> list[int]:
        parent = self.sequences[seq]
        assert len(seeds) == n
        forks = []
        for seed in seeds:
            script = self.by_seed.setdefault(seed, self.next_script())
            forks.append(self._add(list(parent.tokens), parent.params, script))
        return forks

    def resume(self, seq: int, ids: list[int]) -> bool:
        sequence = self.sequences[seq]
        if sequence.status == "finished":
            return False
        if sequence.status != "paused":
            raise ValueError(f"Sequence {seq} is not paused.")
        if len(sequence.tokens) + len(ids) > self.max_context:
            raise ValueError("no room")
        self.resumed.setdefault(seq, []).append(TOKENIZER.decode(ids))
        sequence.tokens += ids
        sequence.status = "running"
        self._next_turn(sequence)
        return True

    def rewind(self, seq: int, length: int) -> bool:
        sequence = self.sequences[seq]
        if sequence.status == "finished":
            return False
        if not 1 <= length <= len(sequence.tokens):
            raise ValueError(f"Sequence {seq} cannot be rewound to {length} tokens.")
        del sequence.tokens[length:]
        sequence.queue.clear()
        sequence.status = "paused"
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
        running = any(sequence.status == "running" for sequence in self.sequences.values())
        return bool(self.events) or running

    def step(self) -> list[Event]:
        self.steps += 1
        time.sleep(0.0005)
        if (error := self.failure(self.steps)) is not None:
            raise error
        events, self.events = self.events, []
        for seq, sequence in self.sequences.items():
            if sequence.status == "running":
                events.append(self._advance(seq, sequence))
        return events

    def _advance(self, seq: int, sequence: ScriptedSequence) -> Event:
        if not sequence.queue:
            sequence.queue = TOKENIZER.encode("~")
        new, sequence.queue = sequence.queue[: self.per_step], sequence.queue[self.per_step :]
        for index, token in enumerate(new):
            if token in sequence.params.pause_token_ids:
                new, sequence.status = new[: index + 1], "paused"
                break
        sequence.tokens += new
        reason = "pause" if sequence.status == "paused" else None
        if len(sequence.tokens) >= self.max_context:
            sequence.status, reason = "finished", "context"
        return Event(seq, tuple(new), (0.5,) * len(new), sequence.status, reason)

    def table(self) -> str:
        return "no memory"


@dataclass(frozen=True)
class ScriptedExecution:
    """The outcome of a scripted cell."""

    status: str
    text: str
    seconds: float = 0.01
    error: str | None = None


class ScriptedKernel:
    """Prints the code that it is given; "error", "die", "hang" and "lost" do what they say."""

    def __init__(self, pool: ScriptedPool) -> None:
        self.pool = pool
        self.stop = threading.Event()
        self.busy = False

    def execute(self, code: str, timeout: float) -> ScriptedExecution:
        self.pool.ran.append(code)
        if code == "error":
            text = "Traceback\nZeroDivisionError: x"
            return ScriptedExecution("error", text, error="ZeroDivisionError")
        if code == "die":
            return ScriptedExecution("died", "KernelDied: gone")
        if code == "lost":
            raise RuntimeError("the pool can make no more kernels")
        if code == "hang":
            self.busy = True
            killed = self.stop.wait(timeout)
            self.busy = False
            return ScriptedExecution("timeout", "killed" if killed else "TimeoutError: too long")
        return ScriptedExecution("ok", f"out {code}")

    def kill(self) -> None:
        self.stop.set()

    def release(self) -> None:
        assert not self.busy
        self.pool.leased -= 1


class ScriptedPool:
    """A pool of scripted kernels; counts those leased, and lists the code that ran."""

    def __init__(self) -> None:
        self.leased = 0
        self.most = 0
        self.ran: list[str] = []

    def lease(self, timeout: float | None = None) -> ScriptedKernel:
        self.leased += 1
        self.most = max(self.most, self.leased)
        return ScriptedKernel(self)


def scripted_solver(
    engine: ScriptedEngine, pool: ScriptedPool | None = None, **config: Any
) -> Solver:
    """Return a solver on a scripted engine."""
    return Solver(
        SolverConfig(**config), engine=engine, tokenizer=TOKENIZER, pool=pool or ScriptedPool()
    )


def solve(
    scripts: list[list[str]],
    engine: ScriptedEngine | None = None,
    per_step: int = 7,
    **config: Any,
) -> tuple[Result, ScriptedEngine, ScriptedPool]:
    """Solve a problem with an attempt for each script, and check that nothing is left behind."""
    engine = engine or ScriptedEngine(scripts, per_step)
    pool = ScriptedPool()
    settings = {"attempts": len(scripts), "time": 20.0, **config}
    with scripted_solver(engine, pool, **settings) as solver:
        result = solver.solve("What is 6 times 7?")
    assert pool.leased == 0, "every kernel was given back"
    assert all(sequence.status == "finished" for sequence in engine.sequences.values())
    return result, engine, pool


def endings(result: Result) -> list[str]:
    """Return the ending of each attempt."""
    return [record["ending"] for record in result.attempts]
