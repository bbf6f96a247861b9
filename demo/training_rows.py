"""Pack traces into training rows, in worker processes that never stop.

A row of `LENGTH` tokens starts with the system turn, the prefix. The traces after it attend to the
prefix and to themselves only, with positions as if each alone followed the prefix. So the long
system prompt is computed once per row.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from eightfold.solver.chat import ChatProtocol, load_protocol
from eightfold.solver.chat.prompt_texts import Prompts

from .control_tokens import CONTROL_TOKENS, END_TURN, STOP_IDS, TURN
from .families import ANSWERS
from .training_traces import Trace, write_trace

LENGTH = 2048
"""Tokens in a row."""

TOKENS, TARGETS, SEGMENTS, POSITIONS = range(4)
"""Planes of a row.

Token ids; the next token if it is trained on, else -1; 0 for the prefix, 1, 2, ... for the traces
and -1 for padding; positions.
"""

MARK = "EIGHTFOLDMARK"
"""A text that no trace contains, to find out where the chat template puts things."""

GAP_SHARE = 0.08
"""Share of the traces that get a gap in their positions."""

MAX_GAP = 6000
"""Positions in the largest gap."""

NOISE_SHARE = 0.5
"""Share of the traces in whose problem some tokens are replaced by others."""

NOISE_RATE = 0.05
"""Share of the tokens, digits left out, that are replaced there."""

OTHER_PREFIX_SHARE = 0.25
"""Share of the rows whose prompt has other limits than the solver's default."""

MAX_WAITING = 24
"""Traces that wait for a row with enough room."""

Row = NDArray[np.int16]


def standard_prompts() -> Prompts:
    """Return the solver's prompts with its default limits filled in."""
    return Prompts().filled(low=ANSWERS[0], high=ANSWERS[-1], seconds=6, characters=6000)


def other_prompts(rng: Random) -> Prompts:
    """Return prompts with other limits, so that the model does not depend on the standard ones."""
    return Prompts().filled(
        low=rng.choice((0, 0, 1)),
        high=rng.choice((999, 9999, 99999, 99999, 999999)),
        seconds=rng.choice((1, 2, 3, 5, 8, 10, 20, 30, 60)),
        characters=rng.choice((1000, 2000, 4000, 5000, 8000, 10000)),
    )


class EncodedTrace(NamedTuple):
    """A trace as tokens.

    Attributes:
        ids: token ids, the user's turn included.
        trained: True for each token that is trained on.
        gaps: indices where a gap in the positions may come.
    """

    ids: list[int]
    trained: list[bool]
    gaps: list[int]


class RowEncoder(Protocol):
    """An encoder, as far as the packer of rows uses it.

    Attributes:
        prefix: token ids of the standard prompt up to the user's turn.
        prefixes: those of prompts with other limits.
    """

    prefix: list[int]
    prefixes: list[list[int]]

    def draw(self, rng: Random) -> EncodedTrace:
        """Return a new trace."""


class TraceEncoder:
    """Encodes prompts and traces as token ids, exactly as the solver's chat protocol does.

    Args:
        folder: holds the tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.protocol = load_protocol(tokenizer, standard_prompts(), STOP_IDS)
        self.fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
        rng = Random("prefixes")
        others = [load_protocol(tokenizer, other_prompts(rng), STOP_IDS) for _ in range(60)]
        self.prefix = self._prefix(self.protocol)
        self.prefixes = [self._prefix(p) for p in others]
        newline = self.encode("\nmodel\n")[0]
        self.after_user = [END_TURN, newline, TURN, *self.encode("model\n")]
        assert self.prompt(MARK) == self.protocol.render_prompt(MARK)
        self.user_head = self.encode("user\n")
        self.digits = frozenset(self.fast.token_to_id(d) for d in "0123456789")
        pieces = range(max(CONTROL_TOKENS) + 1, self.fast.get_vocab_size())
        self.words = [token for token in pieces if token not in self.digits]
        self.nudge = self.protocol.nudge()
        response, mark = self.protocol.tool_response([MARK]), self.encode(MARK)
        at = next(i for i in range(len(response)) if response[i : i + len(mark)] == mark)
        self.tool_frame = response[:at], response[at + len(mark) :]

    def draw(self, rng: Random) -> EncodedTrace:
        """Return a new trace."""
        made = self.trace(write_trace(rng))
        if rng.random() < NOISE_SHARE:
            self.add_noise(made, rng)
        return made

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, in which control tokens are recognized."""
        ids: list[int] = self.fast.encode(text, add_special_tokens=False).ids
        return ids

    def _prefix(self, protocol: ChatProtocol) -> list[int]:
        """Return the prompt up to the user's turn."""
        ids = protocol.render_prompt(MARK)
        return ids[: len(ids) - ids[::-1].index(TURN, ids[::-1].index(TURN) + 1) - 1]

    def user(self, problem: str) -> list[int]:
        """Return the user's turn and the head of the model's."""
        return [TURN, *self.encode(f"user\n{problem}"), *self.after_user]

    def prompt(self, problem: str) -> list[int]:
        """Return the whole standard prompt."""
        return self.prefix + self.user(problem)

    def trace(self, trace: Trace) -> EncodedTrace:
        """Encode a trace, without the prefix in front of it."""
        ids = self.user(trace.problem)
        start, end = 1 + len(self.user_head), len(ids) - len(self.after_user)
        # The words of a problem are learned, too; its numbers are chance.
        trained = [start <= i <= end and t not in self.digits for i, t in enumerate(ids)]
        gaps = [len(ids)]
        for piece in trace.pieces:
            if piece.role == "tool":
                new = [*self.tool_frame[0], *self.encode(piece.text), *self.tool_frame[1]]
            elif piece.role == "nudge":
                new = self.nudge
            else:
                new = self.encode(piece.text)
            ids += new
            trained += [piece.role == "model"] * len(new)
            if piece.role == "tool":
                gaps.append(len(ids))
        return EncodedTrace(ids, trained, gaps)

    def add_noise(self, made: EncodedTrace, rng: Random) -> None:
        """Replace tokens of the problem, so that no single word of it is relied on.

        Digits stay. The words of such a problem are not trained on.
        """
        # The first gap may come behind the user's turn and the head of the model's.
        for index in range(1 + len(self.user_head), made.gaps[0] - len(self.after_user)):
            made.trained[index] = False
            if rng.random() < NOISE_RATE and made.ids[index] not in self.digits:
                made.ids[index] = rng.choice(self.words)


@dataclass
class RowPacker:
    """Packs new traces into rows; a trace for which a row has no room waits for a later row.

    Attributes:
        encoder: encodes the traces.
        rng: draws them.
        length: tokens in a row.
        waiting: traces that wait.
    """

    encoder: RowEncoder
    rng: Random
    length: int = LENGTH
    waiting: list[EncodedTrace] = field(default_factory=list)

    def _next(self, room: int) -> EncodedTrace | None:
        """Return a trace of at most `room` tokens, or None if none comes up soon."""
        for index, made in enumerate(self.waiting):
            if len(made.ids) <= room:
                return self.waiting.pop(index)
        while len(self.waiting) < MAX_WAITING:
            made = self.encoder.draw(self.rng)
            if len(made.ids) <= room:
                return made
            if len(made.ids) < self.length - 180:  # else it would not fit any row
                self.waiting.append(made)
        return None

    def row(self) -> Row:
        """Return the next row, int16 (4, length)."""
        row = np.full((4, self.length), -1, dtype=np.int16)
        row[TOKENS] = 0
        row[POSITIONS] = 0
        prefix = self.encoder.prefix
        if self.rng.random() < OTHER_PREFIX_SHARE:
            prefix = self.rng.choice(self.encoder.prefixes)
        at = len(prefix)
        row[TOKENS, :at] = prefix
        row[SEGMENTS, :at] = 0
        row[POSITIONS, :at] = np.arange(at)
        segment = 0
        while (made := self._next(self.length - at)) is not None:
            segment += 1
            self._place(row, at, segment, len(prefix), made)
            at += len(made.ids)
        return row

    def _place(self, row: Row, at: int, segment: int, start: int, made: EncodedTrace) -> None:
        """Write a trace into a row at index `at`, with positions from `start` on."""
        n = len(made.ids)
        here = slice(at, at + n)
        row[TOKENS, here] = made.ids
        row[SEGMENTS, here] = segment
        positions = np.arange(start, start + n)
        if self.rng.random() < GAP_SHARE:
            # As if something long stood there: the global layers learn to look far back.
            width = int(10 ** self.rng.uniform(1, np.log10(MAX_GAP)))
            positions[self.rng.choice(made.gaps) :] += width
        row[POSITIONS, here] = positions
        targets = np.where(made.trained, made.ids, -1)
        row[TARGETS, at : at + n - 1] = targets[1:]


class RowSupply:
    """Worker processes that keep filling a block of rows in shared memory.

    Each worker owns a part of the block, and starts over when its part is full. Create the supply
    before CUDA is used, because the workers are forks.

    Args:
        encoder: encodes the traces.
        workers: number of processes.
        capacity: number of rows in the block.
        seed: another seed gives other rows.
        length: tokens in a row.
    """

    def __init__(
        self, encoder: RowEncoder, workers: int, capacity: int, seed: int, length: int = LENGTH
    ) -> None:
        self.length = length
        self.workers = workers
        self.each = max(1, capacity // workers)
        self._block = mmap.mmap(-1, workers * self.each * 4 * length * 2)
        self._count_block = mmap.mmap(-1, workers * 8)
        shape = (workers, self.each, 4, length)
        self.rows: Row = np.frombuffer(self._block, dtype=np.int16).reshape(shape)
        self.counts = np.frombuffer(self._count_block, dtype=np.int64)
        self.children = [self._start(encoder, i, seed) for i in range(workers)]

    def _start(self, encoder: RowEncoder, index: int, seed: int) -> int:
        """Fork a worker and return its process id."""
        child = os.fork()
        if child:
            return child
        try:
            os.nice(10)
            self._work(RowPacker(encoder, Random(f"rows {seed} {index}"), self.length), index)
        except BaseException as error:  # a fork must never return into its parent's code
            print(f"worker {index}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)

    def _work(self, packer: RowPacker, index: int) -> None:
        """Fill this worker's part of the block for as long as the parent lives."""
        parent = os.getppid()
        while os.getppid() == parent:
            count = int(self.counts[index])
            try:
                row = packer.row()
            except KeyboardInterrupt:  # a cell's time limit that struck just after the cell
                continue
            self.rows[index, count % self.each] = row
            self.counts[index] = count + 1

    def made(self) -> int:
        """Return the number of rows made so far, overwritten ones included."""
        return int(self.counts.sum())

    def wait(self, rows: int, seconds: float = 300.0) -> None:
        """Wait until so many rows have been made.

        Raises:
            RuntimeError: they were not made in time.
        """
        end = time.monotonic() + seconds
        while self.made() < rows or not self.counts.all():
            if time.monotonic() > end:
                raise RuntimeError(f"The workers made {self.made()} of {rows} rows in {seconds} s.")
            time.sleep(0.1)

    def batch(self, size: int, rng: np.random.Generator) -> Row:
        """Return rows drawn at random from those in the block, int16 (size, 4, length)."""
        owners = rng.integers(self.workers, size=size)
        available = np.minimum(self.counts[owners], self.each)
        return self.rows[owners, (rng.random(size) * available).astype(np.int64)]

    def close(self) -> None:
        """End the workers."""
        for child in self.children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self.children = []
