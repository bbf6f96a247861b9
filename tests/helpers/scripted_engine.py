"""A scripted engine and kernels that keep the contracts, for what surrounds a model.

The engine only plays back texts, one turn after another; what is tested is everything around it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from eightfold.engine import Event, SamplingParams
from eightfold.solver import Solver, SolverConfig

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
