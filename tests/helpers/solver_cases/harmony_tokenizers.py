"""The real vocabulary of gpt-oss, if it lies beside the checkout with recorded attempts."""

from __future__ import annotations

import base64
import os
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .chat_tokenizers import HARMONY_TEMPLATE

REAL_IDS = {
    199998: "<|startoftext|>",
    199999: "<|endoftext|>",
    200002: "<|return|>",
    200003: "<|constrain|>",
    200005: "<|channel|>",
    200006: "<|start|>",
    200007: "<|end|>",
    200008: "<|message|>",
    200012: "<|call|>",
}
"""Control tokens of gpt-oss; the ids between and behind them, up to 201087, are reserved."""

_LETTERS = r"\p{Lm}\p{Lo}\p{M}"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
REAL_PIECES = "|".join(
    (
        rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}{_LETTERS}]*[\p{{Ll}}{_LETTERS}]+{_SUFFIX}",
        rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}{_LETTERS}]+[\p{{Ll}}{_LETTERS}]*{_SUFFIX}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""Pieces into which the vocabulary o200k splits text before it merges bytes."""


def traces_folder() -> Path | None:
    """Return the folder of recorded attempts of a large model, None if it is not there.

    It lies beside the checkout, or where the variable EIGHTFOLD_HARMONY_TRACES says.
    """
    beside = Path(__file__).resolve().parents[4] / "shared" / "traces"
    folder = Path(os.environ.get("EIGHTFOLD_HARMONY_TRACES", beside))
    return folder if (folder / "tokens.npz").is_file() else None


@cache
def real_harmony(ranks: Path) -> PreTrainedTokenizerFast:
    """Return a tokenizer with the vocabulary of gpt-oss.

    Args:
        ranks: file with a token in base64 and its rank in each line.
    """
    vocabulary: dict[bytes, int] = {}
    for line in ranks.read_bytes().splitlines():
        token, rank = line.split()
        vocabulary[base64.b64decode(token)] = int(rank)
    letters = _byte_letters()
    written = {token: "".join(letters[byte] for byte in token) for token in vocabulary}
    core = Tokenizer(
        models.BPE(
            vocab={written[token]: rank for token, rank in vocabulary.items()},
            merges=[(written[left], written[right]) for left, right in _merges(vocabulary)],
            ignore_merges=True,
        )
    )
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(REAL_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    control = [
        REAL_IDS.get(i, f"<|reserved_{i}|>") for i in range(max(vocabulary.values()) + 1, 201088)
    ]
    core.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in control])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|return|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = HARMONY_TEMPLATE.read_text(encoding="utf-8")
    assert all(tokenizer.convert_tokens_to_ids(text) == i for i, text in REAL_IDS.items())
    return tokenizer


def _merges(vocabulary: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Return for each token, by rank, the pairs of tokens that it can be made of."""
    merges = []
    for token in vocabulary:  # in the order of their ranks
        cuts = [(token[:i], token[i:]) for i in range(1, len(token))]
        pairs = [pair for pair in cuts if pair[0] in vocabulary and pair[1] in vocabulary]
        merges += sorted(pairs, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return merges


def _byte_letters() -> dict[int, str]:
    """Return the letter that byte-level tokenizers write for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {
        byte: chr(256 + index) for index, byte in enumerate(others)
    }
