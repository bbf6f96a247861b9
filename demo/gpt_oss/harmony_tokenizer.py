"""Build the tokenizer of the tiny gpt-oss model, with its chat template.

``python -m eightfold.demo.gpt_oss.harmony_tokenizer --out FOLDER`` writes tokenizer.json,
tokenizer_config.json and chat_template.jinja.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from ..families import FAMILIES
from ..tokenizer import train_tokenizer
from ..training_rows import standard_prompts
from ..training_traces import write_trace
from .expert_network import ExpertNetworkConfig
from .harmony_traces import CONTROL_TOKENS, FAMILY_NAMES, HARMONY_FORM

TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def corpus(count: int, seed: int) -> Iterator[str]:
    """Yield texts to learn the merges from: traces, prompts and the words of headers."""
    rng = Random(f"tokenizer {seed}")
    families = [family for family in FAMILIES if family.name in FAMILY_NAMES]
    prompts = standard_prompts()
    fixed = re.sub(r"\{[{%#].*?[}%#]\}", "\n", TEMPLATE.read_text(encoding="utf-8"))
    headers = (
        "assistant\nuser\nsystem\ndeveloper\nanalysis to=python code\nfinal\npython to=assistant"
    )
    for index in range(count):
        trace = write_trace(rng, rng.choice(families), form=HARMONY_FORM, plain=True)
        yield "\n".join((trace.problem, *(piece.text for piece in trace.pieces)))
        if index % 20 == 0:
            yield f"{prompts.system}\n{prompts.nudge}\n{fixed}\n{headers}"


def main(argv: list[str] | None = None) -> int:
    """Train the tokenizer and write it."""
    parser = argparse.ArgumentParser(
        prog="eightfold.demo.gpt_oss.harmony_tokenizer", description=main.__doc__
    )
    add = parser.add_argument
    add("--traces", type=int, default=4000, help="traces to learn from (%(default)s)")
    add("--seed", type=int, default=0, help="(%(default)s)")
    add("--out", type=Path, required=True, help="folder")
    options = parser.parse_args(argv)
    tokenizer = train_tokenizer(
        corpus(options.traces, options.seed), CONTROL_TOKENS, ExpertNetworkConfig.vocab_size
    )
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(options.out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|return|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": ExpertNetworkConfig.max_position_embeddings,
    }
    text = json.dumps(settings, indent=2) + "\n"
    (options.out / "tokenizer_config.json").write_text(text, encoding="utf-8")
    shutil.copyfile(TEMPLATE, options.out / TEMPLATE.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
