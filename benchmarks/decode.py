"""Decode and prefill of a model in the shapes of Gemma-4-31B (random bf16 weights) on one GPU.

    python benchmarks/decode.py --contexts 1024,7000,15000,32000 --batch 8

Beside each figure stands the roofline of the same run: the bytes that a step must read (weights
once, the cache of every sequence) over the read bandwidth measured before. The profile attributes
to each kernel the time from the end of the one before it to its own end, so that the parts add up
to the step. The last line is one JSON object. ``--compare hf`` adds transformers' ``generate``.
"""

import argparse
import gc
import json
import sys
import time
from collections import defaultdict
from typing import Any

import torch
from support.gemma4_random_model import SHAPES, random_model, step_parts
from support.read_bandwidth import read_bandwidth
from support.verification_step import verification_seconds

from eightfold.engine import Engine, EngineConfig, ModelError, SamplingParams

SETTLE, STEPS = 8, 48  # steps before and while measuring
PROMPT = 8192  # tokens, where prefill is measured
# Gemma's own defaults for sampling.
SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95, "top_k": 64, "stop_token_ids": ()}


def prompts(count: int, length: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(10, 50_000, (count, length), generator=generator).tolist()


def start(engine: Engine, batch: int, context: int, new: int | None = None) -> float:
    """Submit and prefill ``batch`` prompts; seconds until each has its first token.

    new: tokens that each may draw; with 1 nothing decodes while the others are prefilled.
    """
    begin = time.perf_counter()
    waiting = {
        engine.submit(prompt, SamplingParams(**SAMPLING, seed=seed, max_new_tokens=new))
        for seed, prompt in enumerate(prompts(batch, context))
    }
    while waiting:
        waiting -= {event.seq for event in engine.step() if event.tokens}
    return time.perf_counter() - begin


def stop(engine: Engine, count: int) -> None:
    """Cancel everything."""
    for seq in range(count):
        engine.cancel(seq)
    while engine.has_work():
        engine.step()


def decode(
    engine: Engine, model: Any, context: int, batch: int, bandwidth: float
) -> dict[str, Any]:
    """Seconds of a decode step, host included, with ``batch`` sequences past ``context``."""
    first = start(engine, batch, context)
    for _ in range(SETTLE):
        engine.step()
    drawn = 0
    begin = time.perf_counter()
    for _ in range(STEPS):
        drawn += sum(len(event.tokens) for event in engine.step())
    step = (time.perf_counter() - begin) / STEPS
    assert drawn == STEPS * batch, f"{drawn} tokens in {STEPS} steps of {batch}"
    read = sum(step_parts(model, [context + SETTLE + STEPS // 2] * batch).values())
    return {
        "context": context,
        "batch": batch,
        "step_ms": round(step * 1e3, 3),
        "tokens_per_s": round(batch / step, 1),
        "roofline_tokens_per_s": round(batch * bandwidth / read, 1),
        "roofline_share": round(read / bandwidth / step, 4),
        "bytes_per_s": round(read / step),
        "prefill_s": round(first, 2),
    }


def profile(engine: Engine, steps: int = 4) -> tuple[dict[str, list[float]], float]:
    """Microseconds a step and launches of each kind of kernel; share of the time without any."""
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
    print(f"{'kernel':34s} {'launches':>8s} {'us':>9s} {'GB':>8s} {'share':>7s}")
    largest = sorted(found.items(), key=lambda item: -item[1][0])[:16]
    for label, (microseconds, launches) in largest:
        size = sizes.get(label, 0)
        share = f"{size / bandwidth / (microseconds * 1e-6):7.1%}" if size else ""
        print(f"{label[:34]:34s} {launches:8.1f} {microseconds:9.1f} {size / 1e9:8.3f} {share:>7s}")


def compare_hf(model: Any, batch: int, context: int) -> dict[str, Any]:
    """transformers' ``generate``: difference of two lengths, so that prefill cancels out."""
    ids = torch.tensor(prompts(batch, context), device=model.device)
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
    """Eight prompts of 8,192 tokens, and the profile of a step; sequences submitted by then."""
    taken = start(engine, arguments.batch, PROMPT, new=1)
    submitted = 1 + arguments.batch
    stop(engine, submitted)
    rate = round(arguments.batch * PROMPT / taken)
    result["prefill_tokens_per_s"] = rate
    print(f"prefill of {arguments.batch} x {PROMPT}: {rate} tok/s", flush=True)
    engine.submit(prompts(1, PROMPT)[0], SamplingParams(**SAMPLING))
    for _ in range(min(3, PROMPT // arguments.chunk - 2)):
        engine.step()
    found, idle = profile(engine, steps=min(4, max(1, PROMPT // arguments.chunk - 3)))
    stop(engine, submitted + 1)
    print(f"a prefill step of {arguments.chunk} tokens, device idle {idle:.2%}")
    print_profile(found, {}, 1.0)
    result["prefill_profile_us"] = {key: round(value[0], 1) for key, value in found.items()}
    return submitted + 1


def measure_decode(
    engine: Engine, model: Any, contexts: list[int], submitted: int, batch: int,
    bandwidth: float, result: dict[str, Any],
) -> None:  # fmt: skip
    """Decode at each context, and the profile of a step at the second."""
    result["decode"] = []
    for context in contexts:
        row = decode(engine, model, context, batch, bandwidth)
        result["decode"].append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if context == contexts[min(1, len(contexts) - 1)]:
            found, idle = profile(engine)
            sizes = step_parts(model, [context + SETTLE + STEPS] * batch)
            print_profile(found, sizes, bandwidth)
            result["idle_share"] = round(idle, 4)
            result["profile_us"] = {key: round(value[0], 1) for key, value in found.items()}
            print(f"device idle {idle:.2%} of the profiled steps", flush=True)
        submitted += batch
        stop(engine, submitted)


def settings(arguments: argparse.Namespace) -> EngineConfig:
    """The engine's; ValueError where they do not fit together."""
    return EngineConfig(
        max_running=arguments.batch,
        max_step_tokens=arguments.chunk,
        max_context=arguments.max_context,
        memory_fraction=arguments.memory_fraction,
        prefix_cache=False,
    )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, printed as it comes.

    Raises:
        ModelError: where the GPU's memory does not hold the model and a cache.
    """
    device, contexts = torch.device("cuda"), arguments.contexts
    bandwidth = read_bandwidth(device)
    print(f"{torch.cuda.get_device_name()}, reads {bandwidth / 1e12:.3f} TB/s", flush=True)
    model = random_model(arguments.model, device)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    engine = Engine(model, settings(arguments))
    made = time.perf_counter() - begin
    start(engine, 1, 16)
    stop(engine, 1)
    ready = time.perf_counter() - begin
    room = (engine.stats()["pages"][0]) * 64
    print(engine.table())
    needed = arguments.batch * (max(PROMPT, *contexts) + 2 * (SETTLE + STEPS))
    if room < needed:
        raise ModelError(
            f"{arguments.batch} sequences need room for {needed} tokens, and there is room for "
            f"{room}; lower --contexts or --batch"
        )
    print(f"engine made in {made:.1f} s, first token after {ready:.1f} s")
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


def whole(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def numbers(text: str) -> list[int]:
    """Whole numbers with commas between them, for argparse."""
    return [whole(part.strip()) for part in text.split(",")]


def parsed() -> argparse.Namespace:
    """The command line; exits with 2 and one sentence where it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(SHAPES), default="gemma-4-31b-shapes")
    parser.add_argument("--contexts", type=numbers, default="1024,7000,15000,32000")
    parser.add_argument("--batch", type=whole, default=8)
    parser.add_argument("--chunk", type=whole, default=1024, help="most tokens of one step")
    parser.add_argument("--max-context", type=whole, default=40960, help="most tokens a sequence")
    parser.add_argument("--memory-fraction", type=float)
    parser.add_argument("--compare", choices=["hf"])
    arguments = parser.parse_args()
    longest = max(PROMPT, *arguments.contexts) + 2 * (SETTLE + STEPS)
    if longest > arguments.max_context:
        parser.error(
            f"prompts of {PROMPT} tokens and contexts of {arguments.contexts} need --max-context "
            f"{longest}, not {arguments.max_context}"
        )
    try:
        settings(arguments)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def main() -> int:
    arguments = parsed()
    if not torch.cuda.is_available():
        print("benchmarks/decode.py needs a CUDA device", file=sys.stderr)
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
