"""Decode and prefill of a model in published shapes (random weights) on one GPU.

    python benchmarks/decode.py --contexts 1024,7000,15000,32000 --batch 8
    python benchmarks/decode.py --model qwen3-30b-a3b-shapes --contexts 4096 --batch 32,64,128,256

The limit beside each figure comes from the same run: the bytes that a step must read (the weights
once, of the experts only those that its rows chose, and the KV cache of every sequence), divided by
the read bandwidth that is measured first; or, if these take longer, the operations of its products
and of attention, at the rate that a large product reaches. The profile assigns to each kernel the
time from the end of the previous kernel to its own end, so that the parts add up to the step. The
last line is one JSON object. `--random-cache` decodes over random keys and values instead of
computed prompts, which takes seconds instead of minutes. `--path graph` runs transformers' modules
in place of the fused decoder; `--compare hf` adds transformers' `generate`.
"""

import argparse
import gc
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from support.model_shapes import SHAPES
from support.random_cache import pass_over_prompts
from support.random_model import (
    STORED,
    attention_operations,
    expert_counts,
    kv_bytes,
    random_model,
    step_bytes,
    step_operations,
)
from support.read_bandwidth import product_rate, read_bandwidth
from support.step_profile import print_profile, print_shares, profile
from support.verification_step import verification_seconds

from eightfold.engine import Engine, EngineConfig, ModelError, SamplingParams

WARMUP_STEPS, STEPS = 8, 48  # steps before and during a measurement
PROMPT = 8192  # tokens of each prompt whose prefill is measured
PAGE = 64
# Gemma's own sampling defaults.
SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95, "top_k": 64, "stop_token_ids": ()}


@dataclass
class Bench:
    """An engine with its model, and the limits of the device.

    Attributes:
        submitted: sequences submitted so far.
    """

    engine: Engine
    model: Any
    bandwidth: float
    product_rate: float
    submitted: int = 0

    def finish(self, batch: int) -> None:
        """Cancel the `batch` sequences submitted last, and run until no work is left."""
        self.submitted += batch
        cancel_all(self.engine, self.submitted)

    def touched(self, batch: int) -> float:
        """Return the different experts that a step's rows choose in a layer, on average.

        transformers' modules do not record them; independent, even choices are assumed then.
        """
        experts = getattr(self.engine._runner.decoder, "experts", None)
        if experts is None:
            total, chosen = expert_counts(self.model.config)
            return total * (1 - (1 - chosen / total) ** batch) if total else 0.0
        counts = []
        for _ in range(4):
            self.engine.step()
            torch.cuda.synchronize()
            counts += [len(layer[:batch].unique()) for layer in experts.chosen]
        return sum(counts) / len(counts)

    def lengths(self) -> list[int]:
        """Return the tokens of each running sequence."""
        return [seq.length for seq in self.engine._scheduler.queues.running]

    def limits(self, lengths: list[int]) -> tuple[dict[str, int], dict[str, float]]:
        """Return the bytes of a step of sequences of these lengths, and the least seconds for them.

        The least seconds are those of the bytes and those of the operations.
        """
        layers, rows = self.engine._runner.cache._architecture.layers, len(lengths)
        sizes = step_bytes(self.model, kv_bytes(layers), lengths, self.touched(rows))
        operations = attention_operations(self.model.config, layers, lengths)
        computing = (operations + step_operations(self.model, rows)) / self.product_rate
        return sizes, {"bytes": sum(sizes.values()) / self.bandwidth, "operations": computing}


def random_prompts(count: int, length: int) -> list[list[int]]:
    """Return prompts of random tokens, the same ones for the same length."""
    generator = torch.Generator().manual_seed(length)
    return torch.randint(10, 50_000, (count, length), generator=generator).tolist()


def prefill(engine: Engine, batch: int, context: int, new: int | None = None) -> float:
    """Submit prompts, and return the seconds until each has its first token.

    Args:
        engine: the engine.
        batch: number of prompts.
        context: tokens of each prompt.
        new: tokens that each may sample. With 1, none decodes while others are prefilled.
    """
    begin = time.perf_counter()
    waiting = {
        engine.submit(prompt, SamplingParams(**SAMPLING, seed=seed, max_new_tokens=new))
        for seed, prompt in enumerate(random_prompts(batch, context))
    }
    while waiting:
        waiting -= {event.seq for event in engine.step() if event.tokens}
    return time.perf_counter() - begin


def cancel_all(engine: Engine, count: int) -> None:
    """Cancel the first `count` sequences, and run until no work is left."""
    for seq in range(count):
        engine.cancel(seq)
    while engine.has_work():
        engine.step()


def time_decode(bench: Bench, context: int, batch: int) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the figures of a decode step, host included, of `batch` sequences past `context`.

    Returns:
        The figures, and the bytes that the step must read.
    """
    engine = bench.engine
    prefill_seconds = prefill(engine, batch, context)
    for _ in range(WARMUP_STEPS):
        engine.step()
    sampled = 0
    lengths = [length + STEPS // 2 for length in bench.lengths()]
    begin = time.perf_counter()
    for _ in range(STEPS):
        sampled += sum(len(event.tokens) for event in engine.step())
    step = (time.perf_counter() - begin) / STEPS
    assert sampled == STEPS * batch, f"{sampled} tokens in {STEPS} steps of {batch}"
    assert len(lengths) == batch, f"{len(lengths)} of {batch} sequences run"
    sizes, limits = bench.limits(lengths)
    limited_by = max(limits, key=lambda name: limits[name])
    least = limits[limited_by]
    row = {
        "context": context,
        "batch": batch,
        "step_ms": round(step * 1e3, 3),
        "tokens_per_s": round(batch / step, 1),
        "limit_tokens_per_s": round(batch / least, 1),
        "limit_ms": {name: round(seconds * 1e3, 3) for name, seconds in limits.items()},
        "limited_by": limited_by,
        "share": round(least / step, 4),
        "prefill_s": round(prefill_seconds, 2),
    }
    return row, sizes


def compare_hf(model: Any, batch: int, context: int) -> dict[str, Any]:
    """Time transformers' `generate` at two lengths; prefill cancels out in the difference."""
    ids = torch.tensor(random_prompts(batch, context), device=model.device)
    found = []
    for new in (4, 20):
        options = {"do_sample": True, "top_k": 64, "top_p": 0.95, "eos_token_id": None}
        model.generate(ids, max_new_tokens=2, **options)
        torch.cuda.synchronize()
        begin = time.perf_counter()
        model.generate(ids, max_new_tokens=new, **options)
        torch.cuda.synchronize()
        found.append(time.perf_counter() - begin)
    return {"context": context, "tokens_per_s": round(16 * batch / (found[1] - found[0]), 1)}


def measure_prefill(bench: Bench, arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """Measure the prefill of 8 prompts, and profile a step of it."""
    engine, count = bench.engine, min(8, max(arguments.batch))
    taken = prefill(engine, count, PROMPT, new=1)
    bench.finish(count)
    rate = round(count * PROMPT / taken)
    result["prefill_tokens_per_s"] = rate
    print(f"prefill of {count} x {PROMPT}: {rate} tok/s", flush=True)
    engine.submit(random_prompts(1, PROMPT)[0], SamplingParams(**SAMPLING))
    for _ in range(min(3, PROMPT // arguments.chunk - 2)):
        engine.step()
    found, idle = profile(engine, steps=min(4, max(1, PROMPT // arguments.chunk - 3)))
    bench.finish(1)
    print(f"a prefill step of {arguments.chunk} tokens, device idle {idle:.2%}")
    print_profile(found)
    result["prefill_profile_us"] = {key: round(value[0], 1) for key, value in found.items()}


def measure_decode(bench: Bench, arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """Measure decode of each number of sequences at each context; profile the second context."""
    result["decode"] = []
    contexts, room = arguments.contexts, result["kv_tokens"]
    for batch in arguments.batch:
        for context in contexts:
            if batch * (context + 2 * (WARMUP_STEPS + STEPS)) > room:
                print(f"{batch} sequences of {context} tokens do not fit into {room} tokens")
                continue
            row, sizes = time_decode(bench, context, batch)
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            if context == contexts[min(1, len(contexts) - 1)]:
                found, idle = profile(bench.engine)
                print_profile(found)
                row["shares"] = print_shares(found, sizes, bench.bandwidth)
                row["idle_share"] = round(idle, 4)
                row["profile_us"] = {key: round(value[0], 1) for key, value in found.items()}
                print(f"device idle {idle:.2%} of the profiled steps", flush=True)
            row["bytes"] = sizes
            result["decode"].append(row)
            bench.finish(batch)


def engine_config(arguments: argparse.Namespace) -> EngineConfig:
    """Return the engine's configuration; raise ValueError if the options contradict each other."""
    return EngineConfig(
        max_running=max(arguments.batch),
        max_step_tokens=arguments.chunk,
        max_context=arguments.max_context,
        memory_fraction=arguments.memory_fraction,
        gpu_memory_bytes=arguments.gpu_memory and arguments.gpu_memory << 20,
        prefix_cache=False,
        fused=None if arguments.path == "fused" else False,
        speculate="off",
        kv=arguments.kv,
    )


def make_bench(arguments: argparse.Namespace, result: dict[str, Any]) -> Bench:
    """Make the model and its engine, and run a first step.

    Raises:
        ModelError: the GPU's memory does not hold the model and the KV cache.
    """
    device = torch.device("cuda")
    bandwidth, rate = read_bandwidth(device), product_rate(device)
    name = torch.cuda.get_device_name()
    print(f"{name}, reads {bandwidth / 1e12:.3f} TB/s, computes {rate / 1e12:.0f} TFLOP/s")
    model = random_model(arguments.model, device, arguments.weights)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    engine = Engine(model, engine_config(arguments))
    created = time.perf_counter() - begin
    bench = Bench(engine, model, bandwidth, rate)
    prefill(engine, 1, 16)
    bench.finish(1)
    ready = time.perf_counter() - begin
    room = (engine.stats()["pages"][0]) * PAGE
    print(engine.table())
    if (needed := PROMPT + 2 * (WARMUP_STEPS + STEPS)) > room:
        raise ModelError(
            f"A prompt needs room for {needed} tokens, but there is room for {room}; lower --batch."
        )
    print(f"engine created in {created:.1f} s, first token after {ready:.1f} s", flush=True)
    result |= {
        "device": name, "model": arguments.model, "weights": arguments.weights, "kv": arguments.kv,
        "path": arguments.path, "bandwidth": bandwidth,
        "operations_per_s": rate, "first_token_s": round(ready, 1), "kv_tokens": room,
        "bytes": engine.bytes_of,
    }  # fmt: skip
    return bench


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything, print each figure as it comes, and return all of them.

    Raises:
        ModelError: the GPU's memory does not hold the model and the KV cache.
    """
    result: dict[str, Any] = {}
    bench = make_bench(arguments, result)
    if arguments.random_cache:
        pass_over_prompts(bench.engine)
    elif not arguments.no_prefill:
        measure_prefill(bench, arguments, result)
    measure_decode(bench, arguments, result)
    model, contexts = bench.model, arguments.contexts
    del bench
    gc.collect()
    torch.cuda.empty_cache()
    if arguments.verify:
        steps = {rows: verification_seconds(model, 8, rows // 8, 1024) for rows in (8, 32, 64)}
        result["verification_ms"] = {rows: round(step * 1e3, 3) for rows, step in steps.items()}
        print("step of 8 sequences by rows, ms:", result["verification_ms"], flush=True)
    if arguments.compare == "hf":
        gc.collect()
        torch.cuda.empty_cache()
        result["hf"] = compare_hf(model, min(arguments.batch), contexts[0])
        print("transformers generate:", result["hf"], flush=True)
    return result


def positive_int(text: str) -> int:
    """Parse a positive integer, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number greater than 0")
    return int(text)


def positive_ints(text: str) -> list[int]:
    """Parse positive integers separated by commas, for argparse."""
    return [positive_int(part.strip()) for part in text.split(",")]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(SHAPES), default="gemma-4-31b-shapes")
    parser.add_argument(
        "--contexts",
        type=positive_ints,
        default="1024,7000,15000,32000",
        help="tokens of each sequence, separated by commas (%(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=positive_ints,
        default="8",
        help="numbers of sequences, separated by commas (%(default)s)",
    )
    parser.add_argument(
        "--path",
        choices=["fused", "graph"],
        default="fused",
        help="the fused decoder or transformers' modules (%(default)s)",
    )
    parser.add_argument("--no-prefill", action="store_true", help="leave the prefill out")
    parser.add_argument(
        "--random-cache", action="store_true", help="compute no prompts; leaves the prefill out"
    )
    parser.add_argument(
        "--verify", action="store_true", help="also time steps with several rows a sequence"
    )
    parser.add_argument(
        "--chunk", type=positive_int, default=1024, help="most tokens of one step (%(default)s)"
    )
    parser.add_argument(
        "--max-context",
        type=positive_int,
        default=40960,
        help="most tokens of a sequence (%(default)s)",
    )
    parser.add_argument(
        "--memory-fraction", type=float, help="share of the free memory that the KV cache may take"
    )
    parser.add_argument(
        "--weights", choices=sorted(STORED), help="linear layers in this format, not in bfloat16"
    )
    parser.add_argument(
        "--kv", choices=["fp8"], help="full attention's keys and values in FP8, not in bfloat16"
    )
    parser.add_argument(
        "--gpu-memory",
        type=positive_int,
        metavar="MIB",
        help="most of the GPU's memory to use, for the room on a smaller one (an H100 has 81559)",
    )
    parser.add_argument("--compare", choices=["hf"], help="also time transformers' generate")
    return parser


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options; exit with code 2 and one sentence if they are wrong."""
    parser = make_parser()
    arguments = parser.parse_args()
    longest = max(PROMPT, *arguments.contexts) + 2 * (WARMUP_STEPS + STEPS)
    if longest > arguments.max_context:
        parser.error(
            f"prompts of {PROMPT} tokens and contexts of {arguments.contexts} need --max-context "
            f"{longest}, not {arguments.max_context}"
        )
    try:
        engine_config(arguments)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def main() -> int:
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        print("benchmarks/decode.py needs a CUDA device.", file=sys.stderr)
        return 2
    begin = time.perf_counter()
    try:
        result = measure(arguments)
    except (ModelError, torch.OutOfMemoryError) as error:
        print(f"benchmarks/decode.py: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    print(json.dumps({**result, "seconds": round(time.perf_counter() - begin, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
