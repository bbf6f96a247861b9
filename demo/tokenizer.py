"""Build the bundled model's tokenizer: byte-level BPE with Gemma 4's control tokens at their ids.

Each digit is a token of its own, so that numbers can be copied digit by digit. To keep programs
short, the end of a line with the indentation after it can be one token, and so can a name with the
bracket that opens its arguments.

``python -m eightfold.demo.tokenizer`` writes tokenizer.json, tokenizer_config.json and
chat_template.jinja into the model's folder, or into ``--out``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from . import model_path
from .control_tokens import CONTROL_TOKENS
from .training_network import NetworkConfig
from .training_rows import standard_prompts
from .training_traces import Trace, write_trace

VOCABULARY = NetworkConfig.vocab_size
TRACES = 20_000
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
"""Pieces that text is split into; no merge crosses their borders."""


def trace_text(trace: Trace) -> str:
    """Return the text of a trace, without the prompt around it."""
    return "\n".join((trace.problem, *(piece.text for piece in trace.pieces)))


def corpus(count: int, seed: int) -> Iterator[str]:
    """Yield texts to learn the merges from: traces and, many times over, the solver's prompts."""
    prompts = standard_prompts()
    sentences = (
        f"user\nmodel\nsystem\n{prompts.system}\n{prompts.tool}\n{prompts.code}\n{prompts.nudge}"
    )
    keywords = "thought\ncall:python{code:\nresponse:python{value:\ndeclaration:python{description:"
    for index in range(count):
        # A draw that is rejected because this machine is slow changes its own trace only.
        yield trace_text(write_trace(Random(f"tokenizer {seed} {index}")))
        if index % 20 == 0:
            yield f"{sentences}\n{keywords}"


def train_tokenizer(
    texts: Iterable[str],
    control_tokens: Mapping[int, str] = CONTROL_TOKENS,
    vocabulary: int = VOCABULARY,
) -> Tokenizer:
    """Return a tokenizer of `vocabulary` entries with merges learned from `texts`.

    Args:
        texts: texts to learn from.
        control_tokens: control tokens by id; ids between them stay unused.
        vocabulary: number of entries.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[
            control_tokens.get(i, f"<unused{i}>") for i in range(max(control_tokens) + 1)
        ],
    )
    # A list, because an iterator would be read on another thread, where no traces can be written.
    clean = [_without_control_tokens(text, control_tokens) for text in texts]
    tokenizer.train_from_iterator(clean, trainer)
    return recognize_control_tokens_only(tokenizer, control_tokens)


def _without_control_tokens(text: str, control_tokens: Mapping[int, str]) -> str:
    """Replace the texts of control tokens, from which no merges are to be learned."""
    for token in control_tokens.values():
        text = text.replace(token, "\x00")
    return text


def recognize_control_tokens_only(
    tokenizer: Tokenizer, control_tokens: Mapping[int, str]
) -> Tokenizer:
    """Return the tokenizer with only the control tokens, not the unused entries, found in text."""
    table = json.loads(tokenizer.to_str())
    table["added_tokens"] = []
    made = Tokenizer.from_str(json.dumps(table))
    made.add_special_tokens(
        [
            AddedToken(control_tokens[i], normalized=False, special=True)
            for i in sorted(control_tokens)
        ]
    )
    return made


def check(tokenizer: Tokenizer, vocabulary: int = VOCABULARY) -> None:
    """Assert that the tokenizer is as intended.

    Control tokens have Gemma's ids, digits stand alone, and text survives encoding and decoding.
    """
    for index, token in CONTROL_TOKENS.items():
        assert tokenizer.token_to_id(token) == index, token
        assert tokenizer.encode(token).ids == [index], token
    assert tokenizer.get_vocab_size() <= vocabulary
    for token in tokenizer.get_vocab():
        assert len(token) == 1 or not any(c in "0123456789" for c in token) or token[0] == "<", (
            token
        )
    for text in ("x = 12345\n    print(x)", "∑ é 漢字 🙂 \t\x00", "a<unused7>b", "  \n\n  12"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text, text


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write what `AutoTokenizer.from_pretrained(folder)` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": NetworkConfig.max_position_embeddings,
        "padding_side": "left",
    }
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    # The template is written by hand; it lies in the model's folder only.
    template = model_path() / "chat_template.jinja"
    if not (folder / template.name).exists() or not template.samefile(folder / template.name):
        shutil.copyfile(template, folder / template.name)


def build(folder: Path, traces: int = TRACES, seed: int = 0, vocabulary: int = VOCABULARY) -> None:
    """Learn a tokenizer from so many traces and write it into a folder."""
    tokenizer = train_tokenizer(corpus(traces, seed), vocabulary=vocabulary)
    check(tokenizer, vocabulary)
    save(tokenizer, folder)


def main(argv: list[str] | None = None) -> int:
    """Train the tokenizer and write it."""
    parser = argparse.ArgumentParser(prog="eightfold.demo.tokenizer", description=main.__doc__)
    parser.add_argument(
        "--traces", type=int, default=TRACES, help="traces to learn from (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument(
        "--vocabulary", type=int, default=VOCABULARY, help="number of entries (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=model_path(), help="folder (%(default)s)")
    options = parser.parse_args(argv)
    build(options.out, options.traces, options.seed, options.vocabulary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
