"""Write training traces: what the bundled model is to say about a problem.

The outputs in a trace come from code that was really run. A trace is a list of pieces. The model
is trained on its own pieces except faulty calls: it is to learn how to continue after an error, not
how to make one.
"""

from __future__ import annotations

import linecache
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from types import FrameType
from typing import Literal

from eightfold.sandbox.text.cell_text import NO_OUTPUT
from eightfold.sandbox.text.inprocess_cell import new_namespace, run_cell

from .families import FAMILIES, Family, Params, fill, fill_slots, write_problem
from .paraphrases import paraphrases
from .problems import draw_params, parse_answer
from .program_faults import draw_fault, miscopy_number, replace_print

CELL_SECONDS = 0.15
"""A draw whose code runs longer gives no trace."""

MAX_OUTPUT = 600
"""A draw whose output has more characters gives no trace."""

KINDS = {"plain": 66, "check": 12, "fault": 11, "silent": 4, "differ": 4, "faults": 1, "nudge": 2}
"""Shares of the kinds of traces among the draws, in percent."""

WEIGHTS = {"expression": 6, "story_chain": 4, "expression_in_words": 4, "sum_of_list": 2}
"""How often a family is drawn, if not once; these have more to vary than numbers."""

PARAPHRASE_SHARE = 0.3
"""Share of the problems of a family with paraphrases that are paraphrases."""

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

Role = Literal["model", "masked", "tool", "nudge"]


@dataclass(frozen=True)
class TraceForm:
    """The control tokens around what a model writes; each function takes and returns text.

    Attributes:
        thought: frames a thought.
        call: frames the code of a call.
        final: frames a final text, the end of the turn included.
    """

    thought: Callable[[str], str]
    call: Callable[[str], str]
    final: Callable[[str], str]


GEMMA_FORM = TraceForm(
    thought=lambda text: f"<|channel>thought\n{text}\n<channel|>",
    call=lambda code: (
        f'<|tool_call>call:python{{code:<|"|>{code}<|"|>}}<tool_call|><|tool_response>'
    ),
    final=lambda text: f"{text}<turn|>",
)
"""The form of Gemma 4."""


@dataclass(frozen=True)
class Piece:
    """A part of a trace.

    Attributes:
        role: "model" (text of the model that is trained on), "masked" (text of the model that is
            not), "tool" (an output) or "nudge" (the solver's request for a boxed answer).
        text: with control tokens if the model writes it, the bare output if the tool does, and ""
            for a nudge.
    """

    role: Role
    text: str


@dataclass(frozen=True)
class Trace:
    """A problem, and what the model does about it.

    Attributes:
        family: name of the problem's family.
        kind: a key of `KINDS`.
        problem, answer: the problem's text and its answer.
        pieces: what follows the problem.
    """

    family: str
    kind: str
    problem: str
    answer: int
    pieces: tuple[Piece, ...]


class DrawRejected(Exception):  # noqa: N818 - not an error: another draw may give a trace
    """These numbers, or this fault, give no trace."""


@contextmanager
def time_limit(seconds: float = CELL_SECONDS) -> Iterator[None]:
    """Raise `DrawRejected` in the body after `seconds`; only on the main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except KeyboardInterrupt as error:
        raise DrawRejected from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class TraceWriter:
    """Writes one trace. Its calls share a namespace, as those of an attempt share a kernel."""

    def __init__(self, family: Family, params: Params, rng: Random, form: TraceForm) -> None:
        self.family, self.params, self.rng, self.form = family, params, rng, form
        self.namespace = new_namespace()
        self.pieces: list[Piece] = []
        self.programs = list(family.programs)
        rng.shuffle(self.programs)
        self.code = fill_slots(self.programs[0], params)

    def say(self, text: str, masked: bool = False) -> None:
        """Append text of the model."""
        self.pieces.append(Piece("masked" if masked else "model", text))

    def think(self, choices: tuple[str, ...], answer: int | None = None) -> None:
        """Append a thought, drawn from `choices`."""
        values = self.params if answer is None else {**self.params, "answer": answer}
        self.say(self.form.thought(fill(self.rng.choice(choices), values, self.rng)))

    def run(self, code: str, masked: bool = False) -> str:
        """Append a call and its output, and return the output."""
        self.say(self.form.call(code), masked)
        with time_limit():
            output = run_cell(code, self.namespace)
        if len(output) > MAX_OUTPUT:
            raise DrawRejected
        self.pieces.append(Piece("tool", output))
        return output

    def run_for_answer(self, code: str) -> int:
        """Run code whose output is an answer."""
        answer = parse_answer(self.run(code))
        if answer is None:
            raise DrawRejected
        return answer

    def run_with_fault(self) -> None:
        """Run a faulty version of the program, and think about its error."""
        made = draw_fault(self.code, self.rng)
        if made is None:
            raise DrawRejected
        faulty, remark = made
        if "Error" not in self.run(faulty, masked=True):
            raise DrawRejected
        self.think((remark,))

    def finish(self, answer: int, choices: tuple[str, ...] = FINALS) -> int:
        """Append the final text, drawn from `choices`, and return the answer."""
        self.say(self.form.final(self.rng.choice(choices).replace("{answer}", str(answer))))
        return answer


def write_plain(w: TraceWriter) -> int:
    """Run one program and answer."""
    w.think(w.family.thoughts)
    return w.finish(w.run_for_answer(w.code))


def write_check(w: TraceWriter) -> int:
    """Run a second program to check the first, and answer."""
    w.think(w.family.thoughts)
    first = w.run_for_answer(w.code)
    w.think(CHECKS, first)
    second = w.run_for_answer(fill_slots(w.programs[1], w.params))
    assert first == second, (w.family.name, w.params)
    if w.rng.random() < 0.5:
        w.think(AGREE, first)
    return w.finish(first)


def write_fault(w: TraceWriter) -> int:
    """Run a faulty program, correct it, and answer."""
    w.think(w.family.thoughts)
    w.run_with_fault()
    return w.finish(w.run_for_answer(w.code))


def write_faults(w: TraceWriter) -> int:
    """Run several faulty programs, then a correct one, and answer."""
    w.think(w.family.thoughts)
    for _ in range(w.rng.randint(2, 4)):
        w.run_with_fault()
    return w.finish(w.run_for_answer(fill_slots(w.rng.choice(w.programs), w.params)))


def write_silent(w: TraceWriter) -> int:
    """Run a program that prints nothing, print its value, and answer."""
    w.think(w.family.thoughts)
    made = replace_print(w.code, w.rng)
    if made is None or w.run(made[0], masked=True) != NO_OUTPUT:
        raise DrawRejected
    w.think(SHOW)
    return w.finish(w.run_for_answer(made[1]))


def write_differ(w: TraceWriter) -> int:
    """Run a program with a wrong number, notice it by a second program, and answer."""
    w.think(w.family.thoughts)
    wrong_params = miscopy_number(w.params, w.rng)
    if wrong_params is None:
        raise DrawRejected
    wrong = parse_answer(w.run(fill_slots(w.programs[0], wrong_params), masked=True))
    if wrong is None:
        raise DrawRejected
    w.think(CHECKS, wrong)
    second = w.run_for_answer(fill_slots(w.programs[1], w.params))
    if second == wrong:
        raise DrawRejected
    w.think(DIFFER)
    third = w.run_for_answer(w.code)
    assert second == third, (w.family.name, w.params)
    return w.finish(third)


def write_nudge(w: TraceWriter) -> int:
    """Answer without a box, and with one after the nudge."""
    w.think(w.family.thoughts)
    answer = w.run_for_answer(w.code)
    text = w.rng.choice(UNBOXED).replace("{answer}", str(answer))
    w.say(w.form.final(text), masked=True)
    w.pieces.append(Piece("nudge", ""))
    return w.finish(answer, FINALS[-1:])


WRITERS: dict[str, Callable[[TraceWriter], int]] = {
    "plain": write_plain,
    "check": write_check,
    "fault": write_fault,
    "faults": write_faults,
    "silent": write_silent,
    "differ": write_differ,
    "nudge": write_nudge,
}


def draw_family(rng: Random) -> Family:
    """Draw a family by its weight."""
    return rng.choices(FAMILIES, cum_weights=_CUMULATED)[0]


_CUMULATED = list(accumulate(WEIGHTS.get(family.name, 1) for family in FAMILIES))


def training_problem(family: Family, params: Params, rng: Random) -> str:
    """Return a problem's text in a phrasing or a paraphrase that is not held out."""
    templates = paraphrases(held_out=False).get(family.name, ())
    share = PARAPHRASE_SHARE * min(1.0, len(templates) / 10)
    if rng.random() < share:
        return write_problem(rng.choice(templates), params, rng, literal=True)
    return write_problem(rng.choice(family.phrasings[:-1]), params, rng)


def write_trace(
    rng: Random,
    family: Family | None = None,
    kind: str | None = None,
    form: TraceForm = GEMMA_FORM,
    plain: bool = False,
) -> Trace:
    """Write a training trace; only on the main thread, because a signal stops slow code.

    Args:
        rng: draws the numbers, the wording and the programs.
        family: the problem's family; None draws one.
        kind: a key of `KINDS`; None draws one.
        form: control tokens around what the model writes.
        plain: no paraphrases, and one spelling only.
    """
    family = family or draw_family(rng)
    while True:
        drawn = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
        params = draw_params(family, rng, held_out=False)
        writer = TraceWriter(family, params, rng, form)
        try:
            answer = WRITERS[drawn](writer)
        except DrawRejected:
            continue
        finally:
            linecache.clearcache()  # each cell leaves its source there
        if plain:
            problem = fill(rng.choice(family.phrasings[:-1]), params, rng)
        else:
            problem = training_problem(family, params, rng)
        return Trace(family.name, drawn, problem, answer, tuple(writer.pieces))
