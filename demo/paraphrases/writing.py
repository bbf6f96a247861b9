"""Let an instruct model paraphrase problems, and keep what a program's answer confirms.

``python -m eightfold.demo.paraphrases.writing MODEL seeds.jsonl --out FOLDER --seconds 120``

The model first rewrites each seed in several ways; those whose numbers are the seed's become
templates. It then writes a program for each paraphrase, as if it were a new problem. A paraphrase
is accepted only if what the program prints is the seed's answer. Programs run in plain processes
with limits on time and memory, so run this on a machine that holds nothing of value.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from .program_check import printed_integer, start_worker
from .templates import NotATemplate, Seed, to_template

if TYPE_CHECKING:
    from eightfold.engine import Engine

WAYS = 6
REWRITE = (
    "Rewrite the following math problem in {ways} different ways. Keep every number and what is "
    "asked exactly the same; change the words and the order of the sentences. Make some of them "
    "questions and some of them commands, some short and some longer. Write one numbered line for "
    "each, from 1 to {ways}, and nothing else.\n\nProblem: {problem}"
)
PROGRAM = (
    "Write a short Python program that prints only the answer of this problem, a single integer. "
    "Reply with one code block.\n\nProblem: {problem}"
)
OPENING = "```python\n"
REWRITE_TOKENS, PROGRAM_TOKENS = 420, 220

_LINE = re.compile(r"^\s*(?:\*\*)?(\d)[.):]\s*(.+)$", re.MULTILINE)


@dataclass
class Candidate:
    """A paraphrase with its template, and whether a program confirmed it."""

    seed: Seed
    text: str
    template: str
    accepted: bool = False


@dataclass
class Conversation:
    """A prompt, and what the model has written."""

    subject: Seed | Candidate
    ids: list[int]
    made: list[int] = field(default_factory=list)


class InstructModel:
    """The engine with a chat model: prompts in, texts out, many at a time.

    Args:
        folder: the checkpoint.
        rows: sequences in a step.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        from transformers import AutoTokenizer

        from eightfold.engine import Engine, EngineConfig

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.rows = rows
        self.engine: Engine = Engine(
            folder,
            EngineConfig(max_running=rows, max_step_tokens=max(2048, 2 * rows), max_context=1024),
        )
        self.sampled = 0

    def conversation(
        self, subject: Seed | Candidate, request: str, opening: str = ""
    ) -> Conversation:
        """Return a conversation that asks for something."""
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": request}], tokenize=False, add_generation_prompt=True
        )
        return Conversation(
            subject, self.tokenizer.encode(text + opening, add_special_tokens=False)
        )

    def write(
        self, waiting: Iterator[Conversation], tokens: int, temperature: float, until: float
    ) -> Iterator[tuple[Conversation, str]]:
        """Yield conversations with the texts that were written, until a time of `time.monotonic`.

        Conversations that are not finished then are dropped.
        """
        from eightfold.engine import SamplingParams

        running: dict[int, Conversation] = {}
        count = 0
        exhausted = False
        while time.monotonic() < until:
            while not exhausted and len(running) < self.rows + 32:
                talk = next(waiting, None)
                if talk is None:
                    exhausted = True
                    break
                count += 1
                params = SamplingParams(
                    max_new_tokens=tokens, temperature=temperature, top_p=0.95, seed=count
                )
                running[self.engine.submit(talk.ids, params)] = talk
            if not running:
                return
            for event in self.engine.step():
                talk = running[event.seq]
                talk.made += event.tokens
                self.sampled += len(event.tokens)
                if event.status in ("finished", "paused"):
                    del running[event.seq]
                    yield talk, self.tokenizer.decode(talk.made, skip_special_tokens=True)
        for seq in running:
            self.engine.cancel(seq)
        while self.engine.has_work():
            self.engine.step()


def read_seeds(path: Path) -> list[Seed]:
    """Return the seeds in a file, the families in turn, so that a short run has some of each."""
    rows = [Seed(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    seen: Counter[str] = Counter()
    order = []
    for row in rows:
        order.append((seen[row.family], row))
        seen[row.family] += 1
    return [row for _, row in sorted(order, key=lambda pair: pair[0])]


def rewrite(
    model: InstructModel, seeds: list[Seed], until: float, counts: Counter[str]
) -> list[Candidate]:
    """Return paraphrases of the seeds that say the same numbers."""
    waiting = (model.conversation(s, REWRITE.format(ways=WAYS, problem=s.text)) for s in seeds)
    found: dict[tuple[str, str], Candidate] = {}
    for talk, text in model.write(waiting, REWRITE_TOKENS, 0.9, until):
        assert isinstance(talk.subject, Seed)
        counts["seeds"] += 1
        for _, line in _LINE.findall(text):
            counts["paraphrases"] += 1
            line = line.strip().strip("*").strip()
            try:
                template = to_template(talk.subject, line)
            except NotATemplate as reason:
                counts[str(reason)] += 1
                continue
            key = (talk.subject.family, template.lower())
            if key in found:
                counts["written before"] += 1
            else:
                found[key] = Candidate(talk.subject, line, template)
    return list(found.values())


def in_turn(candidates: list[Candidate]) -> list[Candidate]:
    """Return the candidates with the families in turn."""
    groups: dict[str, deque[Candidate]] = {}
    for one in candidates:
        groups.setdefault(one.seed.family, deque()).append(one)
    order = []
    while groups:
        for name in list(groups):
            order.append(groups[name].popleft())
            if not groups[name]:
                del groups[name]
    return order


def confirm(
    model: InstructModel,
    candidates: list[Candidate],
    until: float,
    workers: int,
    temperature: float,
    counts: Counter[str],
) -> None:
    """Mark the candidates for which a program of the model prints the seed's answer."""
    waiting = (model.conversation(c, PROGRAM.format(problem=c.text), OPENING) for c in candidates)
    futures: list[tuple[Candidate, Future[int | None]]] = []
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=start_worker
    ) as pool:
        for talk, text in model.write(waiting, PROGRAM_TOKENS, temperature, until):
            assert isinstance(talk.subject, Candidate)
            counts["programs"] += 1
            code = text.partition("```")[0]
            futures.append((talk.subject, pool.submit(printed_integer, code)))
        for candidate, future in futures:
            try:
                printed = future.result(timeout=30)
            except Exception as error:  # a worker that dies costs its program, not the run
                counts[f"worker: {type(error).__name__}"] += 1
                continue
            if printed is None:
                counts["no integer printed"] += 1
            elif printed != candidate.seed.answer:
                counts["other answer"] += 1
            else:
                candidate.accepted = True
        for process in list(pool._processes.values()):
            process.terminate()


def save(out: Path, candidates: list[Candidate], counts: Counter[str]) -> None:
    """Write accepted and refused templates, and the counts."""
    out.mkdir(parents=True, exist_ok=True)
    for name, wanted in (("accepted", True), ("refused", False)):
        with gzip.open(out / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            for one in candidates:
                if one.accepted is wanted:
                    row = {"family": one.seed.family, "template": one.template}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    (out / "counts.json").write_text(json.dumps(dict(counts), indent=1) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Write paraphrases of the seeds within a given time, and check them."""
    parser = argparse.ArgumentParser(
        prog="eightfold.demo.paraphrases.writing", description=main.__doc__
    )
    add = parser.add_argument
    add("model", type=Path, help="folder of an instruct model")
    add("seeds", type=Path, help="file that eightfold.demo.paraphrases.seeds has written")
    add("--seconds", type=float, default=120, help="time to write, without the start (%(default)s)")
    add("--share", type=float, default=0.4, help="share of it for paraphrases (%(default)s)")
    add("--rows", type=int, default=512, help="sequences at a time (%(default)s)")
    add("--workers", type=int, default=12, help="processes that run programs (%(default)s)")
    add("--out", type=Path, required=True, help="folder for the results")
    options = parser.parse_args(argv)
    model = InstructModel(options.model, options.rows)
    counts: Counter[str] = Counter()
    began = time.monotonic()
    until = began + options.share * options.seconds
    candidates = in_turn(rewrite(model, read_seeds(options.seeds), until, counts))
    counts["candidates"] = len(candidates)
    print(
        f"{len(candidates)} candidates after {time.monotonic() - began:.0f} s, "
        f"{model.sampled} tokens",
        flush=True,
    )
    save(options.out, candidates, counts)
    end = began + options.seconds
    confirm(model, candidates, end, options.workers, 0.0, counts)
    again = [one for one in candidates if not one.accepted]
    if time.monotonic() < end - 5:
        confirm(model, again, end, options.workers, 0.7, counts)
    counts["accepted"] = sum(one.accepted for one in candidates)
    counts["tokens"] = model.sampled
    counts["seconds"] = round(time.monotonic() - began)
    save(options.out, candidates, counts)
    print(json.dumps(dict(counts)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
