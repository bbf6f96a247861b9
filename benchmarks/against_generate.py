"""Show whether the engine costs quality: the solver against a loop over transformers' `generate`.

    python benchmarks/against_generate.py MODEL PROBLEMS [--problems 40] [--device cuda]

Both sides make the attempts at the same problems, with the same prompts, tool, sandbox, limits and
seeds; the loop is `support/accuracy/reference_loop.py`. It samples with the engine's noise, which
depends on seed and position alone, so that attempts differ only if rounding or the sandbox's clock
does. Every problem is attempted greedily once, and --attempts times at --temperature. The engine
runs first and is freed before transformers loads the model again.

The table has pass@1 and the vote of both sides over the problems that the time cut off on neither
side, and how many attempts are equal token for token. A first difference is a tie if the
reference's logits of the two tokens lie within two steps of bfloat16; what follows a difference is
not compared. An output of the sandbox that differs counts as one. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accuracy import percent
from support.accuracy.benchmark_options import (
    add_options,
    check_options,
    make_backend,
    sample_problems,
)

from eightfold.common.terminal_table import Column, format_table
from eightfold.solver import Solver, SolverConfig, SolverError
from eightfold.solver.problem_set import Problem
from eightfold.solver.solver_config import MAX_KERNELS
from eightfold.solver.time_budget import process_age

if TYPE_CHECKING:
    from support.accuracy.arm_runs import ArmResult, Records
    from support.accuracy.reference_loop import Row

    from eightfold.sandbox import KernelPool
    from eightfold.solver.chat import ChatProtocol

ENGINE_SHARE = 0.35
"""Share of the time for the engine's part."""

MARGIN = 20.0
"""Seconds kept for the comparison behind the loop."""


def parse_options() -> argparse.Namespace:
    """Return the command line's options; exit with code 2 and one sentence if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="folder of the checkpoint")
    parser.add_argument("file", metavar="problems", help=".csv or .jsonl file")
    add_options(parser, problems=40, max_tokens=1024)
    options = parser.parse_args()
    options.config = replace(check_options(parser, options), early_stop=0)
    try:
        options.sample = sample_problems(options.file, options.problems, options.config)
    except SolverError as error:
        parser.error(str(error))
    return options


def two_parts(config: SolverConfig) -> dict[str, SolverConfig]:
    """Return the settings of the greedy and of the sampled attempts."""
    return {"greedy": replace(config, temperature=0.0, attempts=1), "sampled": config}


@dataclass(frozen=True)
class EngineRun:
    """The results that the engine's part leaves behind.

    Attributes:
        results: the greedy and the sampled attempts.
        protocol: the chat format.
        pool: the kernels, still running.
    """

    results: dict[str, ArmResult]
    protocol: ChatProtocol
    pool: KernelPool


def run_engine(options: argparse.Namespace, folder: Path) -> EngineRun:
    """Run the solver's attempts, and free the engine."""
    from support.accuracy.arm_runs import Arm, run_arm

    backend = make_backend(options.model, options.config, options.rows, options.device)
    try:
        left = ENGINE_SHARE * (options.seconds - process_age())
        waves = -(-len(options.sample) // options.parallel)
        results = {
            name: run_arm(Arm(name), part, backend, options.sample, folder / name, left / 2 / waves)
            for name, part in two_parts(options.config).items()
        }
        parts = {"engine": backend.engine, "tokenizer": backend.tokenizer, "pool": backend.pool}
        with Solver(options.config, **parts) as solver:
            return EngineRun(results, solver.protocol, backend.pool)
    except BaseException:
        backend.pool.close()
        raise


def run_loop(options: argparse.Namespace, model: Any, run: EngineRun) -> dict[str, list[Row]]:
    """Run the same attempts by the loop; return its rows, problem by problem.

    Only as many problems run together as there are kernels for, one for each attempt.
    """
    from support.accuracy.reference_loop import run_reference

    found: dict[str, list[Row]] = {}
    parts = two_parts(options.config)
    size = max(1, min(options.parallel, MAX_KERNELS // options.attempts))
    chunks = [(name, start) for name in parts for start in range(0, len(options.sample), size)]
    with ThreadPoolExecutor(MAX_KERNELS) as executor:
        for index, (name, start) in enumerate(chunks):
            ids = {problem["id"] for problem, _ in run.results[name].records}
            problems = [one for one in options.sample if one.id in ids][start : start + size]
            rows = make_rows(parts[name], problems, run, executor)
            left = options.seconds - process_age() - MARGIN
            run_reference(model, rows, time.monotonic() + left / (len(chunks) - index))
            found[name] = found.get(name, []) + rows
    return found


def make_rows(
    config: SolverConfig, problems: list[Problem], run: EngineRun, executor: ThreadPoolExecutor
) -> list[Row]:
    """Return a row of the loop for each attempt at each problem."""
    from support.accuracy.reference_loop import Row

    from eightfold.engine import SamplingParams
    from eightfold.solver.attempts.attempt import Attempt, AttemptLimits, attempt_seed
    from eightfold.solver.attempts.calls.python_tool import PythonTool
    from eightfold.solver.model_defaults import sampling_values

    protocol, rows = run.protocol, []
    limits = AttemptLimits(config.turns, config.low, config.high)
    sampling = SamplingParams(
        **sampling_values(Path(str(config.model)), config),
        max_new_tokens=config.max_tokens,
        pause_token_ids=protocol.pause_token_ids,
    )
    for problem in problems:
        prompt = protocol.render_prompt(problem.text)
        for index in range(config.attempts):
            seed = attempt_seed(config.seed, problem.id, index)
            attempt = Attempt(index, seed, protocol, limits)
            tool = PythonTool(run.pool, executor, config.tool_timeout, protocol.prompts.malformed)
            rows.append(Row(attempt, list(prompt), tool, replace(sampling, seed=seed)))
    return rows


def loop_records(engine: Records, rows: list[Row]) -> Records:
    """Return the loop's rows as records of the same problems as the engine's.

    Args:
        engine: the engine's records; only the problems in them are used.
        rows: rows of the loop, in the order in which `make_rows` made them for these problems.
    """
    from eightfold.solver.attempts.attempt_trace import attempt_record
    from eightfold.solver.attempts.draft_counts import DraftCounts

    records, rest = [], list(rows)
    for problem, tries in engine:
        own, rest = rest[: len(tries)], rest[len(tries) :]
        made = [attempt_record(row.attempt, row.attempt.statistics(), DraftCounts()) for row in own]
        records.append((problem, made))
    return records


def compare(model: Any, engine: Records, loop: Records, attempts: int) -> dict[str, Any]:
    """Return the scores of both sides, and how their tokens differ."""
    from support.accuracy.arm_figures import difference, score_object, share_right
    from support.accuracy.token_comparison import conversation, find_divergence

    from eightfold.solver.attempts.attempt import Ending
    from eightfold.solver.attempts.voting import DEFAULT_RULE
    from eightfold.solver.evaluation.run_scores import pass_score, vote_score

    whole = [
        not any(one["ending"] == Ending.TIME for one in [*tries, *others])
        for (_, tries), (_, others) in zip(engine, loop, strict=True)
    ]
    engine, loop = (list(compress(side, whole)) for side in (engine, loop))
    divergences = []
    for (problem, tries), (_, others) in zip(engine, loop, strict=True):
        for one, other in zip(tries, others, strict=True):
            tokens = [conversation(problem["prompt"], each) for each in (one, other)]
            divergences.append(find_divergence(model, *tokens))
    differing = [one for one in divergences if one is not None]
    gaps = sorted(one.gap for one in differing if not one.tie)
    return {
        "problems": len(engine),
        "cut off": len(whole) - len(engine),
        "attempts": len(divergences),
        "equal": len(divergences) - len(differing),
        "first difference is a tie": sum(one.tie for one in differing),
        "largest gaps": [round(gap, 3) for gap in gaps[-5:]],
        "engine": {
            "pass@1": score_object(pass_score(engine, 1)),
            f"vote of {attempts}": score_object(vote_score(engine, DEFAULT_RULE)),
        },
        "generate": {
            "pass@1": score_object(pass_score(loop, 1)),
            f"vote of {attempts}": score_object(vote_score(loop, DEFAULT_RULE)),
        },
        "pass@1: engine - generate": difference((engine, loop), (share_right, share_right)),
    }


def print_table(parts: dict[str, dict[str, Any]]) -> None:
    """Print the scores of both sides and the counts of equal attempts."""
    rows = []
    for name, part in parts.items():
        for score, value in part["engine"].items():
            both = (percent(value), percent(part["generate"][score]))
            rows.append([f"{name}, {score}", *both])
    print(format_table((Column(""), Column("engine"), Column("generate")), rows))
    for name, part in parts.items():
        print(
            f"{name}, {part['problems']} problems: {part['equal']} of {part['attempts']} attempts "
            f"are equal token for token; {part['first difference is a tie']} differ at a tie; "
            f"pass@1 differs by {percent(part['pass@1: engine - generate'], sign='+')}"
        )


def main() -> int:
    options = parse_options()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads leave the cores alone
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = run_engine(options, Path(folder))
    except (SolverError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    import torch
    from transformers import AutoModelForCausalLM

    gc.collect()  # the engine's KV cache takes all of a GPU's memory
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    if device == "cuda":
        torch.cuda.empty_cache()
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype).to(device).eval()
    try:
        rows = run_loop(options, model, run)
    finally:
        run.pool.close()
    parts = {}
    for name, part in two_parts(options.config).items():
        order = {problem.id: number for number, problem in enumerate(options.sample)}
        records = sorted(run.results[name].records, key=lambda one: order[one[0]["id"]])
        loop = loop_records(records, rows[name])
        parts[name] = compare(model, records, loop, part.attempts)
    print_table(parts)
    settings = {"model": options.model.name, "problems": Path(options.file).name, "device": device}
    summary = {"benchmark": "against_generate", **settings, "seconds": round(process_age(), 1)}
    print(json.dumps({**summary, **parts}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
