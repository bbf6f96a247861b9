"""One attempt at a problem, as a state machine: what it wrote, called, was told, how it ended."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..answers.boxed_answer import MAX_ANSWER, MIN_ANSWER, answer
from ..chat.chat_protocol import ChatProtocol
from ..chat.tool_call import Call, MalformedCall
from .attempt_statistics import AttemptStatistics, tail_entropy


class State(StrEnum):
    """Where an attempt is; the last two are final."""

    THINKING = "thinking"
    CALLING = "calling"
    WAITING = "waiting"
    ANSWERED = "answered"
    GAVE_UP = "gave up"


class Ending(StrEnum):
    """Why an attempt ended."""

    ANSWERED = "answered"
    TURNS = "turns used up"
    TIME = "time"
    CONTEXT = "context full"
    LENGTH = "token limit"
    CONSENSUS = "cancelled by consensus"
    REFUSED = "engine refused"
    ENGINE = "engine failed"
    SANDBOX = "sandbox failed"
    NO_ANSWER = "no valid answer"
    FAULT = "solver fault"
    INTERRUPTED = "interrupted"


ENGINE_ENDINGS = {"context": Ending.CONTEXT, "length": Ending.LENGTH, "eos": Ending.NO_ANSWER}
"""Reasons of an engine's finished event that are not of the solver's own making."""


@dataclass(frozen=True)
class CallRecord:
    """A tool call and its outcome.

    Attributes:
        code: None where the call could not be read.
        status: "ok", "error", "timeout", "died" or "malformed".
        text: what the model was given to read.
        seconds: run time of the cell.
        error: kind of the failure: the exception's name, or the status; None where it went well.
    """

    code: str | None
    status: str
    text: str
    seconds: float = 0.0
    error: str | None = None


@dataclass
class Turn:
    """What the model wrote between two messages of ours, and what came after it.

    Attributes:
        tokens, entropies: as sampled; nats, empty where entropy was not asked for.
        text: the tokens decoded, control tokens kept.
        calls: the tool calls in it.
        appended: token ids given to the model next (tool results or the nudge).
        replaced: `appended` stands in the place of the last of `tokens`.
        started, seconds: from the problem's start, and how long the model took.
    """

    started: float
    opener: str = ""
    tokens: list[int] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    text: str = ""
    calls: list[CallRecord] = field(default_factory=list)
    appended: list[int] = field(default_factory=list)
    replaced: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class CallTools:
    """Run these calls in order, then report with `Attempt.results`."""

    calls: tuple[Call | MalformedCall, ...]


@dataclass(frozen=True)
class Feed:
    """Append these ids to the sequence, instead of its last token where `drop_last`."""

    ids: tuple[int, ...]
    drop_last: bool = False


Action = CallTools | Feed | None
"""What an attempt asks of its driver; None where it is over."""


@dataclass(frozen=True)
class AttemptLimits:
    """Rounds of tool calls an attempt may make, and the range of answers."""

    turns: int = 128
    low: int = MIN_ANSWER
    high: int = MAX_ANSWER


class Attempt:
    """The state of one attempt. Times are seconds from the problem's start; not thread-safe."""

    def __init__(
        self, index: int, seed: int, protocol: ChatProtocol, limits: AttemptLimits
    ) -> None:
        self.index = index
        self.seed = seed
        self.protocol = protocol
        self.limits = limits
        self.state = State.THINKING
        self.ending: Ending | None = None
        self.detail = ""
        self.answer: int | None = None
        self.ended = 0.0
        self.nudged = False
        self.turns = [Turn(0.0, protocol.prompt_opener)]

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.ending is not None

    @property
    def tokens(self) -> int:
        """Tokens sampled so far."""
        return sum(len(turn.tokens) for turn in self.turns)

    @property
    def calls(self) -> list[CallRecord]:
        """All tool calls with their outcomes."""
        return [call for turn in self.turns for call in turn.calls]

    def receive(self, tokens: Sequence[int], entropies: Sequence[float]) -> None:
        """Takes sampled tokens while thinking."""
        self._expect(State.THINKING)
        self.turns[-1].tokens += tokens
        self.turns[-1].entropies += entropies

    def paused(self, now: float) -> Action:
        """The model handed over: runs its calls, takes its answer, or asks for one once."""
        self._expect(State.THINKING)
        turn = self._close_turn(now)
        calls = self.protocol.parse_calls(turn.opener + turn.text)
        if not calls and turn.tokens[-1] == self.protocol.call_id:
            calls = [MalformedCall("there was no call before the response")]
        if calls:
            if sum(bool(one.calls) for one in self.turns) >= self.limits.turns:
                self.end(Ending.TURNS, now)
                return None
            self.state = State.CALLING
            return CallTools(tuple(calls))
        if self.found() is not None:
            self.end(Ending.ANSWERED, now)
            return None
        if self.nudged:
            self.end(Ending.NO_ANSWER, now)
            return None
        self.nudged = True
        return self._feed(self.protocol.nudge(), self.protocol.user_opener, now)

    def wait(self) -> None:
        """The calls have been handed to the tool."""
        self._expect(State.CALLING)
        self.state = State.WAITING

    def results(self, records: Sequence[CallRecord], now: float) -> Action:
        """The outcomes of the calls that `paused` asked for, one each."""
        self._expect(State.WAITING)
        turn = self.turns[-1]
        turn.calls = list(records)
        self.state = State.THINKING
        ids = self.protocol.tool_response([record.text for record in records])
        # A model may end its turn after a call instead of waiting for the response.
        call_id = self.protocol.call_id
        drop_last = call_id is not None and turn.tokens[-1] != call_id
        if drop_last and call_id is not None:
            ids = [call_id, *ids]
        return self._feed(ids, self.protocol.tool_opener, now, drop_last)

    def finished(self, reason: str, now: float) -> None:
        """The engine ended the sequence by itself."""
        self._expect(State.THINKING)
        ending = ENGINE_ENDINGS.get(reason, Ending.ENGINE)
        if not self.over:
            self.end(ending, now, "" if reason in ENGINE_ENDINGS else reason)

    def end(self, ending: Ending, now: float, detail: str = "") -> None:
        """Ends the attempt; an answer it has already given counts, except after a consensus."""
        if self.over:
            raise AssertionError(f"attempt {self.index} has ended: {self.ending}")
        if self.state is State.THINKING and not self.turns[-1].text:
            self._close_turn(now)
        self.ending, self.detail, self.ended = ending, detail, now
        if ending not in (Ending.CONSENSUS, Ending.NO_ANSWER, Ending.FAULT):
            self.answer = self.found()
        self.state = State.GAVE_UP if self.answer is None else State.ANSWERED

    def found(self) -> int | None:
        """The last valid box in the final channel of the turns so far."""
        final = (self.protocol.final_text(turn.opener + turn.text) for turn in self.turns)
        return answer("\n".join(final), self.limits.low, self.limits.high)

    def statistics(self) -> AttemptStatistics:
        """What the vote sees of it."""
        calls = self.calls
        entropies = [value for turn in self.turns for value in turn.entropies]
        return AttemptStatistics(
            self.index,
            self.answer,
            len(calls),
            sum(call.status != "ok" for call in calls),
            tail_entropy(entropies),
            self.ended,
        )

    def check(self) -> None:
        """Asserts that state, ending and turns agree."""
        final = self.state in (State.ANSWERED, State.GAVE_UP)
        assert final == (self.ending is not None), "final states have an ending, others none"
        assert (self.answer is not None) == (self.state is State.ANSWERED), "answered means so"
        assert all(turn.appended for turn in self.turns[:-1]), "turns are parted by our messages"
        assert sum(bool(turn.calls) for turn in self.turns) <= self.limits.turns, "turns are bound"
        for turn in self.turns:
            assert len(turn.entropies) in (0, len(turn.tokens)), "an entropy a token, or none"

    def _expect(self, state: State) -> None:
        if self.state is not state:
            raise AssertionError(f"attempt {self.index} is {self.state}, not {state}")

    def _close_turn(self, now: float) -> Turn:
        turn = self.turns[-1]
        turn.text = self.protocol.decode(turn.tokens)
        turn.seconds = now - turn.started
        return turn

    def _feed(self, ids: list[int], opener: str, now: float, drop_last: bool = False) -> Feed:
        self.turns[-1].appended = list(ids)
        self.turns[-1].replaced = drop_last
        self.turns.append(Turn(now, opener))
        return Feed(tuple(ids), drop_last)


def attempt_seed(run_seed: int, key: str, index: int) -> int:
    """Seed of attempt `index` at a problem: the first 8 bytes of BLAKE2b of "run_seed/key/index".

    `key` is the problem's id, or its text where it has none. Runs, problems and attempts are thus
    independent of each other and of their order, and 64 bits make a repeat unlikely.
    """
    text = f"{run_seed}/{key}/{index}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "little")


def attempt_record(attempt: Attempt) -> dict[str, Any]:
    """An ended attempt as one JSON-ready object of a trace."""
    statistics = attempt.statistics()
    return {
        "attempt": attempt.index,
        "seed": attempt.seed,
        "state": str(attempt.state),
        "ending": str(attempt.ending),
        "detail": attempt.detail,
        "answer": attempt.answer,
        "nudged": attempt.nudged,
        "tokens": attempt.tokens,
        "calls": statistics.calls,
        "errors": statistics.errors,
        "error_kinds": [call.error for call in attempt.calls if call.error],
        "entropy": None if statistics.entropy is None else round(statistics.entropy, 5),
        "ended": round(statistics.ended, 3),
        "turns": [
            {
                "started": round(turn.started, 3),
                "seconds": round(turn.seconds, 3),
                "opener": turn.opener,
                "text": turn.text,
                "tokens": turn.tokens,
                "entropies": [round(value, 3) for value in turn.entropies],
                "calls": [
                    {
                        "code": call.code,
                        "status": call.status,
                        "error": call.error,
                        "seconds": round(call.seconds, 3),
                        "output": call.text,
                    }
                    for call in turn.calls
                ],
                "appended": turn.appended,
                "replaced": turn.replaced,
            }
            for turn in attempt.turns
        ],
    }
