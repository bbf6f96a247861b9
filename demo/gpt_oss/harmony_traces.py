"""Traces of the tiny gpt-oss model in the Harmony form, as token ids."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tokenizers import Tokenizer

from eightfold.solver.chat import ChatProtocol, load_protocol
from eightfold.solver.chat.template_options import EFFORTS, TemplateOptions

from ..families import FAMILIES
from ..training_rows import MARK, EncodedTrace, other_prompts, standard_prompts
from ..training_traces import Trace, TraceForm, write_trace

CONTROL_TOKENS = dict(
    enumerate(
        (
            "<|endoftext|>",
            "<|startoftext|>",
            "<|return|>",
            "<|constrain|>",
            "<|channel|>",
            "<|start|>",
            "<|end|>",
            "<|message|>",
            "<|call|>",
        )
    )
)
"""Texts of the control tokens by id; the ids are not those of gpt-oss."""

PAD, BOS, RETURN, START, END, MESSAGE, CALL = 0, 1, 2, 5, 6, 7, 8
END_IDS = (RETURN, PAD, CALL)

FAMILY_NAMES = (
    "power_mod",
    "inverse_mod",
    "digit_sum_of_power",
    "divisor_sum",
    "divisor_count",
    "power_sum_mod",
)
"""Families of problems that the model knows."""

TOOL_SECONDS = 6.0

HARMONY_FORM = TraceForm(
    thought=lambda text: f"<|channel|>analysis<|message|>{text}<|end|><|start|>assistant",
    call=lambda code: f"<|channel|>analysis to=python code<|message|>{code}<|call|>",
    final=lambda text: f"<|channel|>final<|message|>{text}<|return|>",
)
"""What the model writes behind `<|start|>assistant`, which stands in front of each piece."""


class HarmonyEncoder:
    """Encodes prompts and traces as token ids, exactly as the solver's chat protocol does.

    Args:
        folder: holds the tokenizer and the chat template.

    Attributes:
        protocol: the chat protocol with the solver's default settings.
        prefix, prefixes: prompts up to the user's turn; see `RowEncoder`.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        standard = TemplateOptions(tool_seconds=TOOL_SECONDS)
        self.protocol = load_protocol(tokenizer, standard_prompts(), END_IDS, standard)
        self.fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.families = tuple(family for family in FAMILIES if family.name in FAMILY_NAMES)
        rng = Random("prefixes")
        self.prefix = self._prefix(self.protocol)
        self.prefixes = []
        for _ in range(40):
            options = TemplateOptions(rng.choice(EFFORTS), rng.choice((2.0, 6.0, 10.0, 30.0)))
            other = load_protocol(tokenizer, other_prompts(rng), END_IDS, options)
            self.prefixes.append(self._prefix(other))
        self.head = [START, *self.encode("assistant")]
        assert self.prompt(MARK) == self.protocol.render_prompt(MARK)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, in which control tokens are recognized."""
        ids: list[int] = self.fast.encode(text, add_special_tokens=False).ids
        return ids

    def _prefix(self, protocol: ChatProtocol) -> list[int]:
        """Return the prompt up to the user's turn: what stands before the last start but one."""
        ids = protocol.render_prompt(MARK)
        starts = [index for index, token in enumerate(ids) if token == START]
        return ids[: starts[-2]]

    def user(self, problem: str) -> list[int]:
        """Return the user's turn and the head of the model's."""
        turn = [START, *self.encode("user"), MESSAGE, *self.encode(problem), END]
        return [*turn, *self.head]

    def prompt(self, problem: str) -> list[int]:
        """Return the whole standard prompt."""
        return self.prefix + self.user(problem)

    def draw(self, rng: Random) -> EncodedTrace:
        """Return a new trace."""
        return self.trace(
            write_trace(rng, rng.choice(self.families), form=HARMONY_FORM, plain=True)
        )

    def trace(self, trace: Trace) -> EncodedTrace:
        """Encode a trace in the Harmony form, without the prefix in front of it."""
        ids = self.user(trace.problem)
        trained = [False] * len(ids)
        gaps = [len(ids)]
        for piece in trace.pieces:
            if piece.role == "tool":
                new = self.protocol.tool_response([piece.text])
            elif piece.role == "nudge":
                reply = self.protocol.answer_request("", ids[gaps[-1] :])
                new = list(reply.ids)
                if reply.drop_last:
                    del ids[-1], trained[-1]
            else:
                new = self.encode(piece.text)
            ids += new
            trained += [piece.role == "model"] * len(new)
            if piece.role == "tool":
                gaps.append(len(ids))
        return EncodedTrace(ids, trained, gaps)
