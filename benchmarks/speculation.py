"""Speculation: tokens a step on recorded attempts, and the speed of steps with drafts on a GPU.

    python benchmarks/speculation.py --traces FOLDER            # on any CPU
    python benchmarks/speculation.py --host --traces FOLDER     # the host's time between steps
    python benchmarks/speculation.py --bundled                  # the bundled model on a CPU
    python benchmarks/speculation.py --mixture                  # a mixture of experts on a CPU
    python benchmarks/speculation.py --contexts 1024,7000       # on one GPU, plain decoding beside
    python benchmarks/speculation.py --gpu --traces FOLDER      # and recorded attempts there

The n-gram drafter is measured on recorded attempts that are sampled again in lockstep (the folder
holds ``tokens.npz``: ``pN_prompt`` and ``pN_aM``, token ids in the Harmony format). On a GPU, a
model in the shapes of Gemma-4-31B with random bf16 weights decodes without drafts, then with drafts
that are all right, with drafts thinned to the acceptance that is published for the 31B's own
drafter (with `--drafter random` at the cost of one with its shapes), and with the n-gram drafter.
The weights decide on tokens as trained ones do (`support/speculation/decided_model.py`).
`--random-cache` decodes over random keys and values instead of computed prompts, which takes
seconds less for each context. The last line is one JSON object.
"""

import argparse
import gc
import json
import sys
from pathlib import Path
from typing import Any

from support.speculation.recorded_attempts import SavedSteps, load_attempts, replay_attempts

from eightfold.engine.execution.runner_limits import MAX_DRAFT_STEP_ROWS
from eightfold.engine.speculation.ngram.ngram_drafter import NgramDrafter

# Share of right drafts by depth, given that those before are right: gemma-4-31B-it-assistant
# (ik_llama.cpp #1993), which makes 3.2 tokens a step with 3 drafts.
PUBLISHED_ACCEPTANCE = (0.91, 0.80, 0.75, 0.66, 0.60)
HOST_STEPS = 400
RECORDED_BEYOND = 32  # recorded tokens of each sequence beyond those that drafts are measured with
# vLLM with the same model and its drafter on one H100 in bf16 at temperature 0, as jarvislabs.ai
# reported on 2026-05-12: tokens a second without and with 8 drafts.
VLLM_H100 = {"1 sequence": (40.3, 125.3), "16 sequences": (375, 953)}
KINDS = {"tree of 7": (True, 7), "line of 7": (False, 7), "line of 3": (False, 3),
         "tree of 15": (True, 15)}  # fmt: skip


def measure_traces(arguments: argparse.Namespace) -> dict[str, Any]:
    """Replay recorded attempts with the n-gram drafter; print and return the figures."""
    result = {}
    for name, (branches, drafts) in KINDS.items():
        found = SavedSteps()
        for problem in arguments.problems:
            attempts = load_attempts(arguments.traces, problem)[: arguments.batch]
            replay_attempts(attempts, NgramDrafter(branches), drafts, arguments.tokens, found)
        if found.steps:
            result[name] = found.figures()
            print(f"n-gram, {name}: {result[name]}", flush=True)
    return result


def measure_host(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time what the host does between two steps at each context; print and return the figures."""
    import torch
    from support.speculation.host_steps import HostSteps

    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    steps = min(arguments.tokens, HOST_STEPS)
    for context in arguments.contexts:
        for name, (branches, drafts) in KINDS.items():
            if arguments.batch * (1 + drafts) > MAX_DRAFT_STEP_ROWS:
                continue
            host = HostSteps(
                arguments.traces, arguments.problems[0], context, branches, drafts, steps,
                arguments.batch,
            )  # fmt: skip
            found = result.setdefault(str(context), {})[name] = host.measure(steps)
            print(f"host, context {context}, n-gram, {name}: {found}", flush=True)
    return result


def divergence(plain: dict[int, list[int]], other: dict[int, list[int]]) -> dict[str, Any]:
    """Return how often larger batches round a token into another one, per token compared."""
    compared = diverged = 0
    for seq, tokens in plain.items():
        pairs = list(zip(tokens, other[seq], strict=False))
        equal = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
        compared += min(equal + 1, len(pairs))
        diverged += equal < len(pairs)
    return {"diverged": diverged, "compared": compared, "share": round(diverged / compared, 5)}


def measure_context(
    engine: Any, context: int, arguments: argparse.Namespace, drafter: Any
) -> dict[str, dict[str, Any]]:
    """Measure recorded drafts at one context length; print and return the figures by kind.

    Args:
        drafter: one with weights, or ``None``.
    """
    from decode import random_prompts
    from support.speculation.device_replay import DeviceReplay
    from support.speculation.drafted_decode import ConstantDrafter, DraftedDecode

    first = context == arguments.contexts[0]
    prompts = random_prompts(arguments.batch, context)
    decode = DraftedDecode(engine, prompts)
    found: dict[str, dict[str, Any]] = {}

    def measure(name: str, drafter: Any, drafts: int, **options: Any) -> None:
        decode.set_drafter(drafter, drafts)
        found[name] = decode.measure(options.pop("tokens", arguments.tokens), **options)
        decode.pause()
        plain = found["plain" if options.get("running") is None else "one alone, plain"]
        found[name]["speedup"] = round(found[name]["tokens_per_s"] / plain["tokens_per_s"], 3)
        print(f"context {context}, {name}: {found[name]}", flush=True)

    # Longer than what is measured, so that the last steps still have recorded drafts.
    measure("plain", None, 0, tokens=arguments.tokens + RECORDED_BEYOND)
    plain_tokens = decode.tokens
    records = {
        (tuple(prompt), seed): prompt + decode.tokens[decode.seqs[seed]]
        for seed, prompt in enumerate(prompts)
    }

    def replay(acceptance: tuple[float, ...] = (), cost: Any = None) -> DeviceReplay:
        return DeviceReplay(engine._runner, records, engine._vocabulary, acceptance, cost)

    kinds = [(f"replay, k={drafts}", (), None, drafts) for drafts in (3, 7)]
    kinds += [(f"thinned replay, k={drafts}", PUBLISHED_ACCEPTANCE, None, drafts)
              for drafts in (3, 7)]  # fmt: skip
    if drafter is not None:
        kinds[2:] = [
            (f"thinned replay at the cost of a drafter, k={k}", PUBLISHED_ACCEPTANCE, drafter, k)
            for k in (3, 7)
        ]
    for name, acceptance, cost, drafts in kinds:
        idle = first and bool(acceptance)
        measure(name, replay(acceptance, cost), drafts, profiled=idle)
    measure("one alone, plain", None, 0, running=1)
    measure("one alone, replay, k=7", replay(), 7, running=1)
    name, acceptance, cost, drafts = kinds[2]
    measure(f"one alone, {name}", replay(acceptance, cost), drafts, running=1)
    if first:
        measure("wrong drafts, k=7", ConstantDrafter(), 7)
        found["rounding"] = divergence(plain_tokens, decode.tokens)
        print(f"context {context}, tokens of 8 and 64 rows: {found['rounding']}", flush=True)
    decode.end()
    return found


def most_tokens(arguments: argparse.Namespace) -> int:
    """Return how many tokens a sequence decodes at most until the slowest one has enough."""
    return 4 * arguments.tokens + 128


def measure_recorded(
    engine: Any,
    forced: Any,
    context: int,
    arguments: argparse.Namespace,
    kinds: list[tuple[str, bool | None, int, Any]],
    found: dict[str, Any],
) -> None:
    """Decode recorded attempts with n-gram drafts; print the figures and add them to ``found``.

    Args:
        kinds: for each measurement its name, whether drafts are trees (``None`` for no drafts), the
            most drafts of a sequence, and what steps cost, if only drafts that pay are verified.
        found: figures by name; those of "plain" must be there or come first.
    """
    from support.speculation.recorded_decode import RecordedDecode

    problem, tokens = arguments.problems[0], 2 * arguments.tokens
    length = most_tokens(arguments)
    decode = RecordedDecode(
        engine, forced, arguments.traces, problem, context, length, arguments.batch
    )
    for name, branches, drafts, costs in kinds:
        drafter = None if branches is None else NgramDrafter(branches)
        if branches:
            decode.capture_trees(drafts)
        decode.set_drafter(drafter, drafts, costs)
        profiled = drafter is not None and context == arguments.contexts[0]
        count = arguments.tokens if drafter is None else tokens
        found[name] = decode.measure(count, profiled=profiled)
        found[name]["speedup"] = round(
            found[name]["tokens_per_s"] / found["plain"]["tokens_per_s"], 3
        )
        decode.pause()
        print(f"recorded attempts, context {context}, n-gram, {name}: {found[name]}", flush=True)
    decode.end()


def measure_gpu(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure steps with drafts of the random model; print and return the figures.

    Trees come last: a fault in their kernels leaves the GPU unusable for what follows.
    """
    import torch
    from support.random_cache import pass_over_prompts
    from support.random_model import random_model
    from support.speculation.decided_model import decide_tokens
    from support.speculation.drafted_decode import ConstantDrafter, drafting_config
    from support.speculation.recorded_decode import ForcedTokens

    from eightfold.engine import Engine
    from eightfold.engine.startup.step_timing import measure_step_costs

    model = random_model(arguments.model, torch.device("cuda"))
    if model.config.model_type == "gemma4_text":
        decide_tokens(model)
    most = most_tokens(arguments)
    config = drafting_config(arguments.batch, max(arguments.contexts) + most, most)
    forced = ForcedTokens(torch.device("cuda"))
    engine = Engine(model, config, ConstantDrafter())
    print(engine.table(), flush=True)
    costs = measure_step_costs(engine._runner, config, engine.max_context, engine._vocabulary)
    print(f"steps by rows: {costs.summary()}", flush=True)
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(), "costs": costs.summary()}
    if arguments.random_cache:
        pass_over_prompts(engine)
    drafter = None
    if arguments.drafter:
        from support.speculation.random_drafter import random_drafter

        drafter = random_drafter(engine, model)
    for context in arguments.contexts:
        result[str(context)] = measure_context(engine, context, arguments, drafter)
    lines: list[tuple[str, bool | None, int, Any]] = [
        ("plain", None, 0, None), ("line of 3", False, 3, None),
        ("line of 7, as many as pay", False, 7, costs),
    ]  # fmt: skip
    trees: list[tuple[str, bool | None, int, Any]] = [
        ("tree of 7", True, 7, None), ("tree of 7, as many as pay", True, 7, costs),
    ]  # fmt: skip
    for kinds in (lines, trees) if arguments.traces is not None else ():
        for context in arguments.contexts:
            recorded = result.setdefault(f"recorded attempts, {context}", {})
            measure_recorded(engine, forced, context, arguments, kinds, recorded)
    del engine, drafter
    gc.collect()
    return result


def measure_bundled(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time attempts of the bundled model on a CPU with and without drafts, three times each."""
    import torch
    from support.speculation.bundled_attempts import PROBLEM, run_attempts

    torch.set_num_threads(1)
    result: dict[str, Any] = {"problem": PROBLEM}
    reference = None
    for speculate in ("off", "auto"):
        runs = [run_attempts(speculate, arguments.batch) for _ in range(3)]
        best = max(runs, key=lambda run: run["tokens_per_s"])
        reference = reference or best["sampled"]
        assert all(run.pop("sampled") == reference for run in runs), "tokens differ"
        result[speculate] = best
        print(f"bundled model, speculate {speculate}: {best}", flush=True)
    result["speedup"] = round(result["auto"]["tokens_per_s"] / result["off"]["tokens_per_s"], 3)
    return result


def measure_mixture(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the processor time of a small mixture of experts with and without drafts.

    The runs take turns, so that a busy machine slows both down alike.
    """
    import torch
    from support.speculation.small_mixture import run_mixture

    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    for temperature in (1.0, 0.0):
        pairs = [
            [run_mixture(speculate, arguments.batch, temperature) for speculate in ("off", "auto")]
            for _ in range(5)
        ]
        assert all(off.pop("sampled") == auto.pop("sampled") for off, auto in pairs)
        ratios = sorted(off["seconds"] / auto["seconds"] for off, auto in pairs)
        found = {"speedup": round(ratios[len(ratios) // 2], 3), "off": pairs[0][0]}
        found |= {"auto": pairs[0][1], "speedups": [round(ratio, 3) for ratio in ratios]}
        result[f"temperature {temperature:g}"] = found
        print(f"mixture of experts, temperature {temperature:g}: {found}", flush=True)
    return result


def positive_ints(text: str) -> list[int]:
    """Parse whole numbers of at least 0, separated by commas, for argparse."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers")
    return [int(part) for part in parts]


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options; exit with code 2 and one sentence if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=Path, help="folder of recorded attempts")
    parser.add_argument(
        "--gpu", action="store_true", help="decode the first of --problems of --traces on a GPU"
    )
    parser.add_argument(
        "--host", action="store_true", help="time the host between steps of --traces, on any CPU"
    )
    parser.add_argument(
        "--problems", type=positive_ints, default="0,1,2,3,4,5,6,7,8,9",
        help="problems of the folder (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--bundled", action="store_true", help="the bundled model, for a CPU")
    parser.add_argument("--mixture", action="store_true", help="a mixture of experts, for a CPU")
    parser.add_argument("--model", default="gemma-4-31b-shapes", help="shapes (%(default)s)")
    parser.add_argument(
        "--contexts", type=positive_ints, default="1024,7000",
        help="tokens of each prompt on a GPU (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--drafter",
        choices=["random"],
        help="also run a drafter of the 31B's -assistant shapes, with random weights",
    )
    parser.add_argument(
        "--random-cache", action="store_true", help="decode over random keys and values on a GPU"
    )
    parser.add_argument("--batch", type=int, default=8, help="sequences (%(default)s)")
    parser.add_argument(
        "--tokens", type=int, help="tokens of each sequence (160 on a GPU, all of a recording)"
    )
    arguments = parser.parse_args()
    if arguments.tokens is None:
        arguments.tokens = 160 if arguments.traces is None or arguments.gpu else 1 << 30
    if arguments.tokens < 1 or arguments.batch < 1:
        parser.error("--tokens and --batch must be at least 1")
    if arguments.host and arguments.traces is None:
        parser.error("--host needs --traces")
    if arguments.traces is not None and not (arguments.traces / "tokens.npz").is_file():
        parser.error(f"{arguments.traces} holds no tokens.npz")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    if arguments.host:
        result = {"host": measure_host(arguments)}
    elif arguments.traces is not None and not arguments.gpu:
        result = {"ngram": measure_traces(arguments)}
    elif arguments.bundled:
        result = {"bundled": measure_bundled(arguments)}
    elif arguments.mixture:
        result = {"mixture": measure_mixture(arguments)}
    else:
        import torch

        if not torch.cuda.is_available():
            print(
                "without --traces, --bundled or --mixture, benchmarks/speculation.py needs a GPU.",
                file=sys.stderr,
            )
            return 2
        result = measure_gpu(arguments)
        print(f"vLLM, one H100, plain and with its drafter, tokens a second: {VLLM_H100}")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
