"""Batching throughput with tool pauses: the engine against transformers' three ways to generate.

    python benchmarks/batching.py [--model DIR] [--device cuda] [--new 100] [--shared]

Eight sequences sample at temperature 1 until each has its tokens. A random subset of the vocabulary
stands for tool calls: a sequence that samples one of these tokens pauses, and random tokens are
appended as the tool's answer. All contestants run the same weights, prompts, pause tokens and
answers, each after a short warmup. They sample different tokens, because their noise differs, and
so they pause in different places; the notes give the number of pauses.

With --shared, the eight are attempts at one problem, as in `solve`: they have the same prompt,
which the engine computes once and then forks. Otherwise each has its own prompt.

- engine: all sequences together; a paused one continues at the next step.
- one by one: `generate` for each sequence in turn, keeping its cache across pauses.
- padded: `generate` on all unfinished sequences, from the start again once all have paused.
- continuous: transformers' `generate_batch`, if it runs, with the sequences submitted again at each
  pause to the manager that the warmup created.

"In vain" counts tokens that went through the model as padding, or although their KV had been
computed before. The limit on a GPU: the weights are read once per step, at the read bandwidth
measured in the same run. The limit on a CPU: each step is one forward pass of the bare model over
eight rows without context. The engine runs first, with its own model, which is freed before the
others begin. Each line is printed as its contestant ends. A contestant that takes longer than
--limit seconds is cut off and has no figure.

With --pairs, the engine and `generate` on the padded batch take turns on prompts without pauses
instead, and the medians of the ratios are printed; --rows 1 --new 1 compares the prefill.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from support.generation.generation_contestants import (
    Result,
    run_contestant,
    run_continuous,
    run_engine,
    run_one_by_one,
    run_padded,
    warm_up_generate,
)
from support.generation.interleaved_pairs import run_pairs
from support.generation.tool_pause_workload import SEQUENCES, Workload, make_workload
from transformers import AutoModelForCausalLM, PreTrainedModel


def load_model(folder: str, device: str, dtype: str) -> PreTrainedModel:
    """Return the model on the device, in float32 on a CPU unless a type is named."""
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()


def free_memory() -> None:
    """Release memory that nothing refers to any longer."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def limit_rate(model: PreTrainedModel) -> float:
    """Return the tokens per second that no engine can exceed (see the top of this file)."""
    if model.device.type == "cpu":
        return SEQUENCES / bare_step_seconds(model)
    from support.read_bandwidth import read_bandwidth

    weights = {tensor.data_ptr(): tensor.nbytes for tensor in model.parameters()}
    if not model.config.get_text_config().tie_word_embeddings:
        weights.pop(model.get_input_embeddings().weight.data_ptr())  # only a few rows are read
    return SEQUENCES * read_bandwidth(model.device) / sum(weights.values())


@torch.inference_mode()
def bare_step_seconds(model: PreTrainedModel, repeats: int = 40) -> float:
    """Return the time of a forward pass of eight rows without context, the best of `repeats`."""
    ids = torch.ones(SEQUENCES, 1, dtype=torch.long, device=model.device)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        model(input_ids=ids, use_cache=False).logits.argmax(-1).tolist()
        times.append(time.perf_counter() - start)
    return min(times)


def run_all(arguments: argparse.Namespace) -> tuple[list[Result], float, Workload]:
    """Run every contestant, and print each result as it comes.

    Returns:
        The results, the engine's first; the limit in tokens per second; and the workload.
    """
    model = load_model(arguments.model, arguments.device, arguments.dtype)
    work = make_workload(
        model.get_input_embeddings().num_embeddings,
        *(arguments.prompt, arguments.new, arguments.pauses, arguments.shared),
    )
    limit = limit_rate(model)
    free_memory()
    results: list[Result] = []

    def run(name: str, contestant: Callable[..., Result]) -> None:
        result = run_contestant(name, contestant, arguments.limit, model, work)
        results.append(result)
        share = f"{result.rate / limit:8.0%}"
        line = f"{result.name:12} {result.rate:8.1f} {share:>9} {result.vain:8}  {result.note}"
        print(line, flush=True)

    print(f"{'':12} {'tok/s':>8} {'of limit':>9} {'in vain':>8}  note", flush=True)
    run("engine", run_engine)
    del model
    free_memory()  # the engine's KV cache takes all of a GPU's memory
    model = load_model(arguments.model, arguments.device, arguments.dtype)
    warm_up_generate(model, work)
    run("one by one", run_one_by_one)
    run("padded", run_padded)
    run("continuous", run_continuous)  # last, because it changes the model's attention
    return results, limit, work


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="model folder (default: the bundled model)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--dtype",
        default="auto",
        help="type of the weights (default: the checkpoint's on a GPU, float32 on a CPU)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="PyTorch's threads; `solve` uses 1 (%(default)s)"
    )
    parser.add_argument(
        "--new", type=int, default=100, help="tokens that each sequence samples (%(default)s)"
    )
    parser.add_argument(
        "--prompt", type=int, default=150, help="tokens of the shortest prompt (%(default)s)"
    )
    parser.add_argument(
        "--pauses", type=float, default=0.02, help="share of tokens that pause (%(default)s)"
    )
    parser.add_argument("--shared", action="store_true", help="one prompt for all, forked")
    parser.add_argument(
        "--limit", type=float, default=60, help="seconds for each contestant (%(default)s)"
    )
    parser.add_argument("--pairs", type=int, help="pairs of engine and `generate` in turn")
    parser.add_argument(
        "--rows", type=int, default=SEQUENCES, help="sequences of a pair (%(default)s)"
    )
    arguments = parser.parse_args()
    if arguments.model is None:
        from eightfold.demo import model_path

        arguments.model = str(model_path())
    return arguments


def summary(
    arguments: argparse.Namespace, results: list[Result], limit: float, what: str, work: Workload
) -> dict[str, Any]:
    """Return the JSON object of the last line; `what` describes the limit."""
    ratio = results[0].rate / results[1].rate if results[1].rate else None
    return {
        "benchmark": "batching",
        "device": arguments.device,
        "sequences": SEQUENCES,
        "threads": arguments.threads,
        "shared_prompt": arguments.shared,
        "prompt_tokens": sum(len(prompt) for prompt in work.prompts),
        "new_tokens": arguments.new,
        "limit": what,
        "limit_tokens_per_second": round(limit, 1),
        "ratio_to_one_by_one": None if ratio is None else round(ratio, 2),
        **{
            result.name.replace(" ", "_"): {
                "tokens_per_second": round(result.rate, 1),
                "seconds": round(result.seconds, 3),
                "tokens_in_vain": result.vain,
                "note": result.note,
            }
            for result in results
        },
    }


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.pairs:
        lengths = (arguments.rows, arguments.prompt, arguments.new)
        model, device, dtype = arguments.model, arguments.device, arguments.dtype
        print(json.dumps(run_pairs(model, device, dtype, lengths, arguments.pairs)))
        return
    results, limit, work = run_all(arguments)
    on_cpu = arguments.device == "cpu"
    what = "a bare forward pass a step" if on_cpu else "weights read once a step"
    print(f"{'limit':12} {limit:8.1f}                     {what}")
    print(json.dumps(summary(arguments, results, limit, what, work)))


if __name__ == "__main__":
    main()
