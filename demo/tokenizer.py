"""Builds the bundled model's tokenizer: byte-level BPE with Gemma 4's control tokens at their ids.

Digits are tokens of their own, so that numbers can be copied digit by digit. A line's end with
the indentation that follows, and a name with the bracket that opens its arguments, may each be one
token: programs stay short.

``python -m eightfold.demo.tokenizer`` writes tokenizer.json, tokenizer_config.json and
chat_template.jinja into the model's folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from eightfold.solver.chat.prompt_texts import Prompts

from .training_traces import Trace, write_trace

HERE = Path(__file__).parent
TEMPLATE = HERE / "chat_template.jinja"

VOCABULARY = 2048
CONTROL = {
    0: "<pad>",
    1: "<eos>",
    2: "<bos>",
    46: "<|tool>",
    47: "<tool|>",
    48: "<|tool_call>",
    49: "<tool_call|>",
    50: "<|tool_response>",
    51: "<tool_response|>",
    52: '<|"|>',
    98: "<|think|>",
    100: "<|channel>",
    101: "<channel|>",
    105: "<|turn>",
    106: "<turn|>",
}
RESERVED = max(CONTROL) + 1

PIECES = "|".join(
    (
        r"\)*:?\n *",
        r"\d",
        r" ?for [a-z_] in range\(",
        r" ?\p{L}[\p{L}_.]*\(",
        r" ?\p{L}[\p{L}_]*",
        r" ?[^\s\p{L}\d]+ ?",
        r"\s",
    )
)


def trace_text(trace: Trace) -> str:
    """A trace's words, without the prompt around them."""
    return "\n".join((trace.problem, *(piece.text for piece in trace.pieces)))


def corpus(count: int, seed: int) -> Iterator[str]:
    """Texts to learn the merges from: traces, and the solver's own sentences many times over."""
    rng = Random(f"tokenizer {seed}")
    prompts = Prompts().filled(low=0, high=99999, seconds=6, characters=6000)
    sentences = (
        f"user\nmodel\nsystem\n{prompts.system}\n{prompts.tool}\n{prompts.code}\n{prompts.nudge}"
    )
    keywords = "thought\ncall:python{code:\nresponse:python{value:\ndeclaration:python{description:"
    for index in range(count):
        yield trace_text(write_trace(rng))
        if index % 20 == 0:
            yield f"{sentences}\n{keywords}"


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """A tokenizer of `VOCABULARY` entries with merges learned from `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = set(CONTROL.values())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[CONTROL.get(i, f"<unused{i}>") for i in range(RESERVED)],
    )
    # A list, not the iterator: it is read in another thread, where traces cannot be written.
    clean = [_without(text, control) for text in texts]
    tokenizer.train_from_iterator(clean, trainer)
    return keep_control_only(tokenizer)


def _without(text: str, control: set[str]) -> str:
    """Text without the control tokens' own strings, of which no merges are to be learned."""
    for token in control:
        text = text.replace(token, "\x00")
    return text


def keep_control_only(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer with only the control tokens recognized in text, not the unused
    entries."""
    table = json.loads(tokenizer.to_str())
    table["added_tokens"] = []
    made = Tokenizer.from_str(json.dumps(table))
    made.add_special_tokens(
        [AddedToken(CONTROL[i], normalized=False, special=True) for i in sorted(CONTROL)]
    )
    return made


def check(tokenizer: Tokenizer) -> None:
    """Control tokens have Gemma's ids, digits stand alone, and any text comes back as it went
    in."""
    for index, token in CONTROL.items():
        assert tokenizer.token_to_id(token) == index, token
        assert tokenizer.encode(token).ids == [index], token
    assert tokenizer.get_vocab_size() <= VOCABULARY
    for token in tokenizer.get_vocab():
        assert len(token) == 1 or not any(c in "0123456789" for c in token) or token[0] == "<", (
            token
        )
    for text in ("x = 12345\n    print(x)", "∑ é 漢字 🙂 \t\x00", "a<unused7>b", "  \n\n  12"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text, text


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes what `AutoTokenizer.from_pretrained(folder)` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
        "padding_side": "left",
    }
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    shutil.copyfile(TEMPLATE, folder / "chat_template.jinja")


def main(argv: list[str] | None = None) -> int:
    """Trains and writes the tokenizer."""
    parser = argparse.ArgumentParser(prog="eightfold.demo.tokenizer", description=main.__doc__)
    parser.add_argument("--traces", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "model")
    options = parser.parse_args(argv)
    tokenizer = train_tokenizer(corpus(options.traces, options.seed))
    check(tokenizer)
    save(tokenizer, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
