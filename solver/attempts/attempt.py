"""One attempt at a problem, as a state machine without any thread, engine or kernel."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ..answers.boxed_answer import MAX_ANSWER, MIN_ANSWER, answer, bare_integer
from ..answers.no_answer import explain_no_answer
from ..chat.chat_protocol import ChatProtocol
from ..chat.tool_call import Call, MalformedCall
from ..chat.turn_contents import Reply, TurnContents
from .attempt_statistics import AttemptStatistics, tail_entropy
from .calls.call_record import CallRecord
from .calls.repeated_failures import RepeatedFailures


class State(StrEnum):
    """The state of an attempt; the last two are final."""

    THINKING = "thinking"
    CALLING = "calling"
    WAITING = "waiting"
    ANSWERED = "answered"
    GAVE_UP = "gave up"


class Ending(StrEnum):
    """The reason why an attempt ended."""

    ANSWERED = "answered"
    TURNS = "turns used up"
    TIME = "time"
    CONTEXT = "context full"
    LENGTH = "token limit"
    CONSENSUS = "cancelled by consensus"
    REFUSED = "engine refused"
    ENGINE = "engine failed"
    MEMORY = "GPU memory exhausted"
    SANDBOX = "sandbox failed"
    NO_ANSWER = "no valid answer"
    REPEATED = "repeated failed calls"
    FAULT = "solver fault"
    INTERRUPTED = "interrupted"


MACHINE_ENDINGS = (Ending.ENGINE, Ending.MEMORY, Ending.SANDBOX)
"""Endings that are the machine's fault, not the model's: the attempt may be made again."""

ENGINE_ENDINGS = {"context": Ending.CONTEXT, "length": Ending.LENGTH, "eos": Ending.NO_ANSWER}
"""Reasons for which the engine itself finishes a sequence, and the endings that they amount to."""


@dataclass
class Turn:
    """The text that the model wrote between two messages of the solver, and the reply to it.

    Attributes:
        started: seconds from the problem's start to the turn's.
        opener: opening of a thought that the message before left unclosed, or "".
        tokens: sampled token ids.
        entropies: entropy of each token, in nats; empty if entropy is not recorded.
        text: decoded tokens, control tokens included.
        contents: what the chat format reads from the tokens, once the turn has ended.
        calls: tool calls of the turn.
        appended: token ids that the solver appended, tool results or a nudge.
        replaced: True if `appended` stands in place of the last of `tokens`.
        stopped: True if the model was stopped behind a block of code in its text.
        rewound: number of tokens behind that block that were taken back; they are not in `tokens`.
        seconds: time that the model took.
    """

    started: float
    opener: str = ""
    tokens: list[int] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    text: str = ""
    contents: TurnContents = field(default_factory=TurnContents)
    calls: list[CallRecord] = field(default_factory=list)
    appended: list[int] = field(default_factory=list)
    replaced: bool = False
    stopped: bool = False
    rewound: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class CallTools:
    """Run these calls in order and pass the outcomes to `Attempt.on_results`.

    Attributes:
        calls: the calls.
        rewind: number of tokens to take back from the end of the sequence, which still runs; None
            if the sequence has paused.
    """

    calls: tuple[Call | MalformedCall, ...]
    rewind: int | None = None


@dataclass(frozen=True)
class Feed:
    """Append ids to the sequence, in place of its last token if `drop_last` is True."""

    ids: tuple[int, ...]
    drop_last: bool = False


Action = CallTools | Feed | None
"""Request of an attempt to the code that drives it; None once the attempt has ended."""


@dataclass(frozen=True)
class AttemptLimits:
    """Limits of an attempt.

    Attributes:
        turns: rounds of tool calls that an attempt may make.
        low, high: range of answers.
    """

    turns: int = 128
    low: int = MIN_ANSWER
    high: int = MAX_ANSWER


class Attempt:
    """The state of one attempt; not thread-safe.

    All times are seconds from the problem's start.

    Args:
        index: number of the attempt, from 0.
        seed: seed of its sampling.
        protocol: chat format of the model.
        limits: see `AttemptLimits`.
    """

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
        self._asked = 0  # number of turns before the reply to the nudge
        self.turns = [Turn(0.0, protocol.prompt_opener)]
        self._failures = RepeatedFailures(protocol.prompts.repeated)

    @property
    def over(self) -> bool:
        """True once the attempt has ended."""
        return self.ending is not None

    @property
    def tokens(self) -> int:
        """Number of tokens sampled so far, including those that were taken back."""
        return sum(len(turn.tokens) + turn.rewound for turn in self.turns)

    @property
    def calls(self) -> list[CallRecord]:
        """All tool calls that have an outcome."""
        return [call for turn in self.turns for call in turn.calls]

    def add_tokens(self, tokens: Sequence[int], entropies: Sequence[float]) -> None:
        """Add sampled tokens to the current turn."""
        self._expect(State.THINKING)
        self.turns[-1].tokens += tokens
        self.turns[-1].entropies += entropies

    def stop_at_code(self, now: float, new: int = 1, paused: bool = False) -> CallTools | None:
        """Stop a model that has completed a block of code in its text, and run the code.

        Models that were trained on code with its output would invent the output next. What they
        wrote behind the block is taken back; `on_results` puts the real output there.

        Args:
            now: the time.
            new: number of tokens that were added since the last call.
            paused: True if the last of them ended the turn.

        Returns:
            None if there is no complete block outside thoughts and calls, or if it ends the turn.
        """
        self._expect(State.THINKING)
        turn = self.turns[-1]
        stop = self.protocol.early_stop(turn.opener, turn.tokens, new)
        if stop is None or (paused and stop.kept >= len(turn.tokens) - 1):
            return None
        turn.stopped, turn.rewound = True, len(turn.tokens) - stop.kept
        del turn.tokens[stop.kept :], turn.entropies[stop.kept :]
        self._close_turn(now)
        return self._call(stop.calls, now, turn.rewound)

    def on_pause(self, now: float) -> Action:
        """End the model's turn: run its calls, take its answer, or ask for an answer once."""
        self._expect(State.THINKING)
        turn = self._close_turn(now)
        if turn.contents.calls:
            return self._call(turn.contents.calls, now)
        if self.answer_since_calls() is not None:
            self.end(Ending.ANSWERED, now)
            return None
        if self.nudged:
            early = self.boxed_answer() is not None
            detail = "" if early else self._explain_no_answer()
            self.end(Ending.ANSWERED if early else Ending.NO_ANSWER, now, detail)
            return None
        self.nudged, self._asked = True, len(self.turns)
        return self._feed(self.protocol.answer_request(turn.opener, turn.tokens), now)

    def _call(
        self, calls: Sequence[Call | MalformedCall], now: float, rewind: int | None = None
    ) -> CallTools | None:
        """Ask for these calls to be run, unless the attempt has used up its turns."""
        if sum(bool(turn.calls) for turn in self.turns) >= self.limits.turns:
            self.end(Ending.TURNS, now)
            return None
        self.state = State.CALLING
        return CallTools(tuple(calls), rewind)

    def await_results(self) -> None:
        """Note that the calls have been handed to the tool."""
        self._expect(State.CALLING)
        self.state = State.WAITING

    def on_results(self, records: Sequence[CallRecord], now: float) -> Action:
        """Pass the outcomes of the calls that `on_pause` asked for, one for each, to the model.

        An attempt whose calls only fail as they have failed before ends.
        """
        self._expect(State.WAITING)
        turn = self.turns[-1]
        turn.calls = records = [self._failures.add(record) for record in records]
        self.state = State.THINKING
        if self._failures.hopeless:
            self.end(Ending.REPEATED, now, self._failures.last)
            return None
        outputs = [record.text for record in records]
        reply = self.protocol.reply_to_calls(turn.opener, turn.tokens, outputs, turn.stopped)
        return self._feed(reply, now)

    def on_finish(self, reason: str, now: float) -> None:
        """End the attempt because the engine finished its sequence."""
        self._expect(State.THINKING)
        ending = ENGINE_ENDINGS.get(reason, Ending.ENGINE)
        if not self.over:
            self.end(ending, now, "" if reason in ENGINE_ENDINGS else reason)

    def end(self, ending: Ending, now: float, detail: str = "") -> None:
        """End the attempt.

        An answer that it has already boxed counts, unless it is cancelled by a consensus or has
        been found to have no valid answer. A box behind the last call goes before boxes that were
        written earlier.
        """
        if self.over:
            raise AssertionError(f"Attempt {self.index} has ended: {self.ending}.")
        if self.state is State.THINKING and not self.turns[-1].text:
            self._close_turn(now)
        if ending not in (Ending.CONSENSUS, Ending.NO_ANSWER):
            since = self.answer_since_calls()
            self.answer = self.boxed_answer() if since is None else since
        self.ending, self.detail, self.ended = ending, detail, now
        self.state = State.GAVE_UP if self.answer is None else State.ANSWERED

    def fail(self, now: float, detail: str) -> None:
        """End the attempt because of a fault of the solver, without reading what was written."""
        self.ending, self.detail, self.ended = Ending.FAULT, detail, now
        self.state, self.answer = State.GAVE_UP, None

    def boxed_answer(self) -> int | None:
        """Return the last valid box in the final text of all turns, or None if there is none.

        If no final text has one, the drafts count: thoughts in which a format reads boxes too.
        """
        found = self._answer_in(self.turns)
        if found is not None:
            return found
        drafts = "\n".join(turn.contents.draft for turn in self.turns)
        return answer(drafts, self.limits.low, self.limits.high)

    def answer_since_calls(self) -> int | None:
        """Return the last valid box that the model wrote after its last call, or None.

        A box before a call is a guess that the model goes on to check: it is the final answer only
        if the attempt ends without another. A reply to the nudge that is nothing but an integer
        counts as boxed, because nothing else was asked for.
        """
        called = max((i for i, turn in enumerate(self.turns) if turn.calls), default=-1)
        found = self._answer_in(self.turns[called + 1 :])
        if found is None and self.nudged and called < self._asked:
            bare = bare_integer(self._final_text(self.turns[self._asked :]))
            if bare is not None and self.limits.low <= bare <= self.limits.high:
                return bare
        return found

    def _explain_no_answer(self) -> str:
        """Return why nothing that the model wrote counts as its answer."""
        asked = self._final_text(self.turns[: self._asked])
        reason = explain_no_answer(asked, self.limits.low, self.limits.high)
        reply = self._final_text(self.turns[self._asked :])
        return reason or explain_no_answer(reply, self.limits.low, self.limits.high)

    def _answer_in(self, turns: Sequence[Turn]) -> int | None:
        return answer(self._final_text(turns), self.limits.low, self.limits.high)

    def _final_text(self, turns: Sequence[Turn]) -> str:
        return "\n".join(turn.contents.final for turn in turns)

    def statistics(self) -> AttemptStatistics:
        """Return what votes and scores are computed from."""
        calls = self.calls
        entropies = [value for turn in self.turns for value in turn.entropies]
        return AttemptStatistics(
            self.index,
            self.answer,
            len(calls),
            sum(call.status != "ok" for call in calls),
            tail_entropy(entropies),
            self.ended,
            sum(len(call.code) for call in calls if call.code is not None),
        )

    def check(self) -> None:
        """Assert that state, ending and turns agree."""
        final = self.state in (State.ANSWERED, State.GAVE_UP)
        assert final == (self.ending is not None), "final states have an ending, others have none"
        assert (self.answer is not None) == (self.state is State.ANSWERED), "an answer is the state"
        assert all(turn.appended for turn in self.turns[:-1]), "a message separates two turns"
        assert sum(bool(turn.calls) for turn in self.turns) <= self.limits.turns, "turns are bound"
        for turn in self.turns:
            assert len(turn.entropies) in (0, len(turn.tokens)), "all tokens have entropy or none"

    def _expect(self, state: State) -> None:
        if self.state is not state:
            raise AssertionError(f"Attempt {self.index} is {self.state}, not {state}.")

    def _close_turn(self, now: float) -> Turn:
        turn = self.turns[-1]
        turn.text = self.protocol.decode(turn.tokens)
        turn.contents = self.protocol.read_turn(turn.opener, turn.tokens)
        turn.seconds = now - turn.started
        return turn

    def _feed(self, reply: Reply, now: float) -> Feed:
        self.turns[-1].appended = list(reply.ids)
        self.turns[-1].replaced = reply.drop_last
        self.turns.append(Turn(now, reply.opener))
        return Feed(reply.ids, reply.drop_last)


def attempt_seed(run_seed: int, key: str, index: int) -> int:
    """Return the seed of attempt `index`: the first 8 bytes of BLAKE2b of "run_seed/key/index".

    Seeds of different runs, problems and attempts are thus independent, also of the order in which
    they run, and with 64 bits a repetition is unlikely.

    Args:
        run_seed: seed of the run.
        key: id of the problem, or its text if it has none.
        index: number of the attempt, from 0.
    """
    text = f"{run_seed}/{key}/{index}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "little")
