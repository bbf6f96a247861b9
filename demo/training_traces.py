"""Writes traces: what the bundled model is to say about a problem, with outputs of code that was
really run.

A trace is a list of pieces. Pieces of the model are trained on, apart from faulty calls: the
model is to learn how to go on after an error, not how to make one.
"""

from __future__ import annotations

import linecache
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from eightfold.sandbox.text.cell_text import NO_OUTPUT
from eightfold.sandbox.text.inprocess_cell import new_namespace, run_cell

from .families import FAMILIES, Family, Params, fill, fill_slots
from .problems import draw_params, parse_answer
from .program_faults import fault, miscopy, silence

CELL_SECONDS = 0.5
"""A cell that runs longer is no good for a trace."""

KINDS = {"plain": 66, "check": 12, "fault": 11, "silent": 4, "differ": 4, "faults": 1, "nudge": 2}
"""How often each kind of trace is drawn, in percent."""

CHECKS = (
    "I check this with another method.",
    "Let me verify {answer} in a second way.",
    "The output is {answer}. A second method should give the same.",
)
AGREE = ("Both methods give {answer}.", "The results agree: {answer}.", "{answer} is confirmed.")
DIFFER = (
    "The results differ. I compare the numbers with the problem and try again.",
    "The two outputs are not equal; one program has a wrong number. Once more.",
)
SHOW = ("Nothing was printed. I print the value.", "There is no output; I print the variable.")
FINALS = (
    "The answer is \\boxed{{answer}}.",
    "The answer is $\\boxed{{answer}}$.",
    "So the result is $\\boxed{{answer}}$.",
    "\\boxed{{answer}}",
)
UNBOXED = ("The answer is {answer}.", "So the result is {answer}.")


@dataclass(frozen=True)
class Piece:
    """A part of a trace.

    who: "model" (trained on), "unlearned" (the model's, not trained on), "tool" (an output) or
    "nudge".
    text: with control tokens where it is the model's; the bare output where it is the tool's.
    """

    who: str
    text: str


@dataclass(frozen=True)
class Trace:
    """A problem and what the model does about it."""

    family: str
    kind: str
    problem: str
    answer: int
    pieces: tuple[Piece, ...]


class NoTrace(Exception):  # noqa: N818 - no error: this draw gives no trace, the next one may
    """These numbers, or this fault, are no good for a trace."""


@contextmanager
def limited(seconds: float = CELL_SECONDS) -> Iterator[None]:
    """Raises NoTrace in its body after `seconds`; in the main thread only."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except KeyboardInterrupt as error:
        raise NoTrace from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def thought(text: str) -> str:
    return f"<|channel>thought\n{text}\n<channel|>"


def call(code: str) -> str:
    return f'<|tool_call>call:python{{code:<|"|>{code}<|"|>}}<tool_call|><|tool_response>'


class Writer:
    """One trace in the making; its calls share a namespace, as those of an attempt share a
    kernel."""

    def __init__(self, family: Family, params: Params, rng: Random) -> None:
        self.family, self.params, self.rng = family, params, rng
        self.namespace = new_namespace()
        self.pieces: list[Piece] = []
        self.programs = list(family.programs)
        rng.shuffle(self.programs)
        self.code = fill_slots(self.programs[0], params)

    def say(self, text: str, learned: bool = True) -> None:
        self.pieces.append(Piece("model" if learned else "unlearned", text))

    def think(self, choices: tuple[str, ...], answer: int | None = None) -> None:
        values = self.params if answer is None else {**self.params, "answer": answer}
        self.say(thought(fill(self.rng.choice(choices), values, self.rng)))

    def run(self, code: str, learned: bool = True) -> str:
        self.say(call(code), learned)
        with limited():
            output = run_cell(code, self.namespace)
        if len(output) > 600:
            raise NoTrace
        self.pieces.append(Piece("tool", output))
        return output

    def answer(self, code: str) -> int:
        """Runs code that gives the answer."""
        answer = parse_answer(self.run(code))
        if answer is None:
            raise NoTrace
        return answer

    def finish(self, answer: int, choices: tuple[str, ...] = FINALS) -> int:
        self.say(self.rng.choice(choices).replace("{answer}", str(answer)) + "<turn|>")
        return answer


def plain(w: Writer) -> int:
    w.think(w.family.thoughts)
    return w.finish(w.answer(w.code))


def check(w: Writer) -> int:
    w.think(w.family.thoughts)
    first = w.answer(w.code)
    w.think(CHECKS, first)
    second = w.answer(fill_slots(w.programs[1], w.params))
    assert first == second, (w.family.name, w.params)
    if w.rng.random() < 0.5:
        w.think(AGREE, first)
    return w.finish(first)


def one_fault(w: Writer) -> None:
    made = fault(w.code, w.rng)
    if made is None:
        raise NoTrace
    faulty, remark = made
    if "Error" not in w.run(faulty, learned=False):
        raise NoTrace
    w.think((remark,))


def faulty(w: Writer) -> int:
    w.think(w.family.thoughts)
    one_fault(w)
    return w.finish(w.answer(w.code))


def faults(w: Writer) -> int:
    w.think(w.family.thoughts)
    for _ in range(w.rng.randint(2, 4)):
        one_fault(w)
    return w.finish(w.answer(fill_slots(w.rng.choice(w.programs), w.params)))


def silent(w: Writer) -> int:
    w.think(w.family.thoughts)
    made = silence(w.code, w.rng)
    if made is None or w.run(made[0], learned=False) != NO_OUTPUT:
        raise NoTrace
    w.think(SHOW)
    return w.finish(w.answer(made[1]))


def differ(w: Writer) -> int:
    w.think(w.family.thoughts)
    wrong_params = miscopy(w.params, w.rng)
    wrong = parse_answer(w.run(fill_slots(w.programs[0], wrong_params), learned=False))
    if wrong is None:
        raise NoTrace
    w.think(CHECKS, wrong)
    second = w.answer(fill_slots(w.programs[1], w.params))
    if second == wrong:
        raise NoTrace
    w.think(DIFFER)
    third = w.answer(w.code)
    assert second == third, (w.family.name, w.params)
    return w.finish(third)


def nudge(w: Writer) -> int:
    w.think(w.family.thoughts)
    answer = w.answer(w.code)
    text = w.rng.choice(UNBOXED).replace("{answer}", str(answer))
    w.say(text + "<turn|>", learned=False)
    w.pieces.append(Piece("nudge", ""))
    return w.finish(answer, FINALS[-1:])


WRITERS: dict[str, Callable[[Writer], int]] = {
    "plain": plain,
    "check": check,
    "fault": faulty,
    "faults": faults,
    "silent": silent,
    "differ": differ,
    "nudge": nudge,
}


def write_trace(rng: Random, family: Family | None = None, kind: str | None = None) -> Trace:
    """A training trace: family, kind, numbers, wording and programs are drawn unless given.

    Runs in the main thread only (cells are stopped by a signal).
    """
    family = family or rng.choice(FAMILIES)
    while True:
        drawn = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
        params = draw_params(family, rng, held_out=False)
        writer = Writer(family, params, rng)
        try:
            answer = WRITERS[drawn](writer)
        except NoTrace:
            continue
        finally:
            linecache.clearcache()  # each cell leaves its source there
        problem = fill(rng.choice(family.phrasings[:-1]), params, rng)
        return Trace(family.name, drawn, problem, answer, tuple(writer.pieces))
