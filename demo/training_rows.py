"""Training rows: many traces behind one shared prompt prefix, made by worker processes without end.

A row of `LENGTH` tokens starts with the system turn; after it come traces that see this prefix
and themselves only, each with positions as if it alone followed the prefix. So the long system
prompt is computed once a row.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from eightfold.solver.chat import ChatProtocol, load_protocol
from eightfold.solver.chat.prompt_texts import Prompts

from .training_traces import Trace, write_trace

LENGTH = 2048
TOKENS, TARGETS, OWNERS, POSITIONS = range(4)
"""Planes of a row: token ids; the next token where it is learned, else -1; 0 for the prefix, 1,
2, ... for the traces, -1 for padding; positions."""

TURN, END_TURN = 105, 106
MARK = "EIGHTFOLDMARK"
GAP_SHARE = 0.08
LONGEST_GAP = 6000
OTHER_PREFIX_SHARE = 0.25

Row = NDArray[np.int16]


def standard_prompts() -> Prompts:
    """The solver's prompts with its default limits filled in."""
    return Prompts().filled(low=0, high=99999, seconds=6, characters=6000)


def other_prompts(rng: Random) -> Prompts:
    """Prompts with other limits, so that the model does not hang on the standard ones."""
    return Prompts().filled(
        low=rng.choice((0, 0, 1)),
        high=rng.choice((999, 9999, 99999, 99999, 999999)),
        seconds=rng.choice((1, 2, 3, 5, 8, 10, 20, 30, 60)),
        characters=rng.choice((1000, 2000, 4000, 5000, 8000, 10000)),
    )


class Renderer:
    """Token ids of prompts and traces, as the solver's protocol makes them."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.protocol = load_protocol(tokenizer, standard_prompts(), (1, 50, 106))
        self.fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
        rng = Random("prefixes")
        others = [load_protocol(tokenizer, other_prompts(rng), (1, 50, 106)) for _ in range(60)]
        self.prefix = self._prefix(self.protocol)
        self.prefixes = [self._prefix(p) for p in others]
        before, after = (self.encode(t) for t in ("user\n", "\nmodel\n"))
        self.after_user = [END_TURN, after[0], TURN, *self.encode("model\n")]
        assert before
        assert self.prompt(MARK) == self.protocol.render_prompt(MARK)
        self.nudge = self.protocol.nudge()
        first, last = (self.protocol.tool_response([MARK]), self.encode(MARK))
        at = next(i for i in range(len(first)) if first[i : i + len(last)] == last)
        self.tool_frame = first[:at], first[at + len(last) :]

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.fast.encode(text, add_special_tokens=False).ids
        return ids

    def _prefix(self, protocol: ChatProtocol) -> list[int]:
        """The prompt up to the user's turn."""
        ids = protocol.render_prompt(MARK)
        return ids[: len(ids) - ids[::-1].index(TURN, ids[::-1].index(TURN) + 1) - 1]

    def user(self, problem: str) -> list[int]:
        """The user's turn and the head of the model's."""
        return [TURN, *self.encode(f"user\n{problem}"), *self.after_user]

    def prompt(self, problem: str) -> list[int]:
        """The whole standard prompt."""
        return self.prefix + self.user(problem)

    def trace(self, trace: Trace) -> tuple[list[int], list[bool], list[int]]:
        """A trace after the prefix: ids, whether each is learned, and where a gap may come."""
        ids = self.user(trace.problem)
        learned = [False] * len(ids)
        gaps = [len(ids)]
        for piece in trace.pieces:
            if piece.who == "tool":
                new = [*self.tool_frame[0], *self.encode(piece.text), *self.tool_frame[1]]
            elif piece.who == "nudge":
                new = self.nudge
            else:
                new = self.encode(piece.text)
            ids += new
            learned += [piece.who == "model"] * len(new)
            if piece.who == "tool":
                gaps.append(len(ids))
        return ids, learned, gaps


@dataclass
class Packer:
    """Fills rows with fresh traces.

    A trace that does not fit any more waits for a later row.
    """

    renderer: Renderer
    rng: Random
    length: int = LENGTH

    def __post_init__(self) -> None:
        self.waiting: list[tuple[list[int], list[bool], list[int]]] = []

    def _next(self, room: int) -> tuple[list[int], list[bool], list[int]] | None:
        for index, made in enumerate(self.waiting):
            if len(made[0]) <= room:
                return self.waiting.pop(index)
        while len(self.waiting) < 24:
            made = self.renderer.trace(write_trace(self.rng))
            if len(made[0]) <= room:
                return made
            if len(made[0]) < self.length - 180:
                self.waiting.append(made)
        return None

    def row(self) -> Row:
        """One row, int16 (4, length)."""
        row = np.full((4, self.length), -1, dtype=np.int16)
        row[TOKENS] = 0
        row[POSITIONS] = 0
        prefix = self.renderer.prefix
        if self.rng.random() < OTHER_PREFIX_SHARE:
            prefix = self.rng.choice(self.renderer.prefixes)
        at = len(prefix)
        row[TOKENS, :at] = prefix
        row[OWNERS, :at] = 0
        row[POSITIONS, :at] = np.arange(at)
        owner = 0
        while (made := self._next(self.length - at)) is not None:
            owner += 1
            self._place(row, at, owner, len(prefix), *made)
            at += len(made[0])
        return row

    def _place(
        self,
        row: Row,
        at: int,
        owner: int,
        start: int,
        ids: list[int],
        learned: list[bool],
        gaps: list[int],
    ) -> None:
        n = len(ids)
        here = slice(at, at + n)
        row[TOKENS, here] = ids
        row[OWNERS, here] = owner
        positions = np.arange(start, start + n)
        if self.rng.random() < GAP_SHARE:
            # As if something long stood there: the global layers learn to look far back.
            width = int(10 ** self.rng.uniform(1, np.log10(LONGEST_GAP)))
            positions[self.rng.choice(gaps) :] += width
        row[POSITIONS, here] = positions
        targets = np.where(learned, ids, -1)
        row[TARGETS, at : at + n - 1] = targets[1:]


class Supply:
    """Worker processes that keep filling a shared block of rows; each owns a part of it and
    starts over at its end.

    Create it before CUDA is used: the workers are forks.
    """

    def __init__(
        self, folder: Path, workers: int, capacity: int, seed: int, length: int = LENGTH
    ) -> None:
        self.length = length
        self.workers = workers
        self.each = max(1, capacity // workers)
        self._block = mmap.mmap(-1, workers * self.each * 4 * length * 2)
        self._count_block = mmap.mmap(-1, workers * 8)
        shape = (workers, self.each, 4, length)
        self.rows: Row = np.frombuffer(self._block, dtype=np.int16).reshape(shape)
        self.counts = np.frombuffer(self._count_block, dtype=np.int64)
        renderer = Renderer(folder)
        self.children = [self._start(renderer, i, seed) for i in range(workers)]

    def _start(self, renderer: Renderer, index: int, seed: int) -> int:
        child = os.fork()
        if child:
            return child
        try:
            os.nice(10)
            self._work(Packer(renderer, Random(f"rows {seed} {index}"), self.length), index)
        except BaseException as error:  # a fork must never return into its parent's code
            print(f"worker {index}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)

    def _work(self, packer: Packer, index: int) -> None:
        parent = os.getppid()
        while os.getppid() == parent:
            count = int(self.counts[index])
            self.rows[index, count % self.each] = packer.row()
            self.counts[index] = count + 1

    def made(self) -> int:
        """Rows made so far, those already overwritten included."""
        return int(self.counts.sum())

    def wait(self, rows: int, seconds: float = 300.0) -> None:
        """Waits until so many rows are there.

        Raises:
            RuntimeError: they did not come in time.
        """
        end = time.monotonic() + seconds
        while self.made() < rows or not self.counts.all():
            if time.monotonic() > end:
                raise RuntimeError(f"The workers made {self.made()} of {rows} rows in {seconds} s.")
            time.sleep(0.1)

    def batch(self, size: int, rng: np.random.Generator) -> Row:
        """Rows drawn at random from those that are there, (size, 4, length)."""
        owners = rng.integers(self.workers, size=size)
        there = np.minimum(self.counts[owners], self.each)
        return self.rows[owners, (rng.random(size) * there).astype(np.int64)]

    def close(self) -> None:
        """Ends the workers."""
        for child in self.children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self.children = []


def rows(folder: Path, seed: int) -> Iterator[Row]:
    """Rows made in this process."""
    packer = Packer(Renderer(folder), Random(f"rows {seed}"))
    while True:
        yield packer.row()
