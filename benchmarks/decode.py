"""Decode and prefill of a model in the shapes of Gemma-4-31B (random bf16 weights) on one GPU.

    python benchmarks/decode.py --contexts 1024,7000,15000,32000 --batch 8

The roofline beside each figure comes from the same run: the bytes that a step must read (the
weights once, and the KV cache of every sequence), divided by the read bandwidth that is measured
first. The profile assigns to each kernel the time from the end of the previous kernel to its own
end, so that the parts add up to the step. The last line is one JSON object. `--compare hf` adds
transformers' `generate`.
"""

import argparse
import gc
import json
import sys
import time
from collections import defaultdict
from typing import Any

import torch
from support.gemma4_random_model import SHAPES, random_model, step_bytes
from support.read_bandwidth import read_bandwidth
from support.verification_step import verification_seconds

from eightfold.engine import Engine, EngineConfig, ModelError, SamplingParams

WARMUP_STEPS, STEPS = 8, 48  # steps before and during a measurement
PROMPT = 8192  # tokens of each prompt whose prefill is measured
# Gemma's own sampling defaults.
SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95, "top_k": 64, "stop_token_ids": ()}


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


def time_decode(
    engine: Engine, model: Any, context: int, batch: int, bandwidth: float
) -> dict[str, Any]:
    """Return the figures of a decode step, host included, of `batch` sequences past `context`."""
    prefill_seconds = prefill(engine, batch, context)
    for _ in range(WARMUP_STEPS):
        engine.step()
    sampled = 0
    begin = time.perf_counter()
    for _ in range(STEPS):
        sampled += sum(len(event.tokens) for event in engine.step())
    step = (time.perf_counter() - begin) / STEPS
    assert sampled == STEPS * batch, f"{sampled} tokens in {STEPS} steps of {batch}"
    read = sum(step_bytes(model, [context + WARMUP_STEPS + STEPS // 2] * batch).values())
    return {
        "context": context,
        "batch": batch,
        "step_ms": round(step * 1e3, 3),
        "tokens_per_s": round(batch / step, 1),
        "roofline_tokens_per_s": round(batch * bandwidth / read, 1),
        "roofline_share": round(read / bandwidth / step, 4),
        "bytes_per_s": round(read / step),
        "prefill_s": round(prefill_seconds, 2),
    }


def profile(engine: Engine, steps: int = 4) -> tuple[dict[str, list[float]], float]:
    """Return the microseconds and launches per step of each kernel, and the share of idle time."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as recorded:
        for _ in range(steps):
            engine.step()
        torch.cuda.synchronize()
    kernels = sorted(
        (e.time_range.end, e.time_range.start, e.name)
        for e in recorded.events()
        if e.device_type == torch.autograd.DeviceType.CUDA and "Memcpy" not in e.name
    )
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    last_end, idle = kernels[0][1], 0.0
    for end, begin, name in kernels:
        label = "qkv product" if "linear_few_rows" in name else name
        idle += max(0.0, begin - last_end)
        found[label][0] += (max(end, last_end) - last_end) / steps
        found[label][1] += 1 / steps
        last_end = max(end, last_end)
    return dict(found), idle / (last_end - kernels[0][1])


def print_profile(found: dict[str, list[float]], sizes: dict[str, int], bandwidth: float) -> None:
    """Print the kernels that take longest, with the share of the bandwidth if bytes are known."""
    print(f"{'kernel':34s} {'launches':>8s} {'us':>9s} {'GB':>8s} {'share':>7s}")
    largest = sorted(found.items(), key=lambda item: -item[1][0])[:16]
    for label, (microseconds, launches) in largest:
        size = sizes.get(label, 0)
        share = f"{size / bandwidth / (microseconds * 1e-6):7.1%}" if size else ""
        print(f"{label[:34]:34s} {launches:8.1f} {microseconds:9.1f} {size / 1e9:8.3f} {share:>7s}")


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


def measure_prefill(engine: Engine, arguments: argparse.Namespace, result: dict[str, Any]) -> int:
    """Measure prefill and profile a step of it; return how many sequences have been submitted."""
    taken = prefill(engine, arguments.batch, PROMPT, new=1)
    submitted = 1 + arguments.batch
    cancel_all(engine, submitted)
    rate = round(arguments.batch * PROMPT / taken)
    result["prefill_tokens_per_s"] = rate
    print(f"prefill of {arguments.batch} x {PROMPT}: {rate} tok/s", flush=True)
    engine.submit(random_prompts(1, PROMPT)[0], SamplingParams(**SAMPLING))
    for _ in range(min(3, PROMPT // arguments.chunk - 2)):
        engine.step()
    found, idle = profile(engine, steps=min(4, max(1, PROMPT // arguments.chunk - 3)))
    cancel_all(engine, submitted + 1)
    print(f"a prefill step of {arguments.chunk} tokens, device idle {idle:.2%}")
    print_profile(found, {}, 1.0)
    result["prefill_profile_us"] = {key: round(value[0], 1) for key, value in found.items()}
    return submitted + 1


def measure_decode(
    engine: Engine, model: Any, contexts: list[int], submitted: int, batch: int,
    bandwidth: float, result: dict[str, Any],
) -> None:  # fmt: skip
    """Measure decode at each context, and profile a step at the second one."""
    result["decode"] = []
    for context in contexts:
        row = time_decode(engine, model, context, batch, bandwidth)
        result["decode"].append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if context == contexts[min(1, len(contexts) - 1)]:
            found, idle = profile(engine)
            sizes = step_bytes(model, [context + WARMUP_STEPS + STEPS] * batch)
            print_profile(found, sizes, bandwidth)
            result["idle_share"] = round(idle, 4)
            result["profile_us"] = {key: round(value[0], 1) for key, value in found.items()}
            print(f"device idle {idle:.2%} of the profiled steps", flush=True)
        submitted += batch
        cancel_all(engine, submitted)


def engine_config(arguments: argparse.Namespace) -> EngineConfig:
    """Return the engine's configuration; raise ValueError if the options contradict each other."""
    return EngineConfig(
        max_running=arguments.batch,
        max_step_tokens=arguments.chunk,
        max_context=arguments.max_context,
        memory_fraction=arguments.memory_fraction,
        prefix_cache=False,
    )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything, print each figure as it comes, and return all of them.

    Raises:
        ModelError: the GPU's memory does not hold the model and the KV cache.
    """
    device, contexts = torch.device("cuda"), arguments.contexts
    bandwidth = read_bandwidth(device)
    print(f"{torch.cuda.get_device_name()}, reads {bandwidth / 1e12:.3f} TB/s", flush=True)
    model = random_model(arguments.model, device)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    engine = Engine(model, engine_config(arguments))
    created = time.perf_counter() - begin
    prefill(engine, 1, 16)
    cancel_all(engine, 1)
    ready = time.perf_counter() - begin
    room = (engine.stats()["pages"][0]) * 64
    print(engine.table())
    needed = arguments.batch * (max(PROMPT, *contexts) + 2 * (WARMUP_STEPS + STEPS))
    if room < needed:
        raise ModelError(
            f"{arguments.batch} sequences need room for {needed} tokens, but there is room for "
            f"{room}; lower --contexts or --batch."
        )
    print(f"engine created in {created:.1f} s, first token after {ready:.1f} s")
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(), "model": arguments.model, "bandwidth": bandwidth,
        "first_token_s": round(ready, 1), "kv_tokens": room, "bytes": engine.bytes_of,
    }  # fmt: skip
    submitted = measure_prefill(engine, arguments, result)
    measure_decode(engine, model, contexts, submitted, arguments.batch, bandwidth, result)
    del engine
    gc.collect()
    torch.cuda.empty_cache()
    steps = {rows: verification_seconds(model, 8, rows // 8, 1024) for rows in (8, 32, 64)}
    result["verification_ms"] = {rows: round(step * 1e3, 3) for rows, step in steps.items()}
    print("step of 8 sequences by rows, ms:", result["verification_ms"], flush=True)
    if arguments.compare == "hf":
        gc.collect()
        torch.cuda.empty_cache()
        result["hf"] = compare_hf(model, arguments.batch, contexts[0])
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


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options; exit with code 2 and one sentence if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(SHAPES), default="gemma-4-31b-shapes")
    parser.add_argument(
        "--contexts",
        type=positive_ints,
        default="1024,7000,15000,32000",
        help="tokens of each sequence, separated by commas (%(default)s)",
    )
    parser.add_argument(
        "--batch", type=positive_int, default=8, help="number of sequences (%(default)s)"
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
    parser.add_argument("--compare", choices=["hf"], help="also time transformers' generate")
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
