"""Checks every Triton kernel against its reference and times it in the shapes of Gemma-4-31B.

    python benchmarks/kernels.py [--quick] [--only linear,decode,small,layer,prefill,sampling]

Every time is that of one call inside a replayed CUDA graph that walks over several sets of buffers,
so that neither the L2 cache nor the host helps. Bandwidth counts the bytes a kernel must read once;
its share is that of the read bandwidth measured in the same run. Ends with one line of JSON.
"""

import argparse
import functools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch
import triton
import triton.language as tl

from eightfold.kernels.decode import (
    DecodeConfig,
    OneCopy,
    decode_workspace,
    paged_decode,
    paged_decode_reference,
)
from eightfold.kernels.linear import LinearConfig, skinny_linear, skinny_linear_reference
from eightfold.kernels.norm import add_norm, add_norm_reference
from eightfold.kernels.prefill import PrefillConfig, paged_prefill, paged_prefill_reference
from eightfold.kernels.rotary import norm_rotate_write
from eightfold.kernels.sampler import sample_tokens, sampler_workspace
from eightfold.kernels.sampling import SamplingBatch, sample

HIDDEN, INNER, VOCABULARY, HEADS = 5376, 21504, 262144, 32
POOL = 3_000_000_000  # bf16 elements that weights and caches are views of
PAGE = 64
LAYERS = {
    "qkv sliding": (16384, HIDDEN, False),
    "o sliding": (HIDDEN, 8192, False),
    "qk global": (18432, HIDDEN, False),
    "o global": (HIDDEN, 16384, False),
    "gate_up": (INNER, HIDDEN, True),
    "down": (HIDDEN, INNER, False),
    "lm_head": (VOCABULARY, HIDDEN, False),
}
LINEAR_CONFIGS = [
    LinearConfig(64, 128, 4, 5, 1, 0, True),
    LinearConfig(64, 128, 4, 5, 1, 512, True),
    LinearConfig(64, 128, 4, 6, 1, 1024, True),
    LinearConfig(64, 128, 4, 5, 4, 0, True),
    LinearConfig(64, 128, 4, 5, 4, 512, True),
    LinearConfig(64, 128, 4, 5, 2, 512, True),
    LinearConfig(64, 256, 4, 3, 1, 512, True),
]
GATED_CONFIGS = [
    LinearConfig(64, 128, 4, 3, 1, 0, True),
    LinearConfig(64, 128, 4, 3, 1, 512, True),
    LinearConfig(64, 128, 4, 5, 1, 512, True),
    LinearConfig(64, 128, 4, 6, 1, 0, True),
    LinearConfig(32, 256, 4, 3, 1, 0, False),
]
WIDE_CONFIGS = [  # 64 rows
    LinearConfig(128, 64, 4, 5, 1, 0, True),
    LinearConfig(128, 128, 8, 4, 1, 0, True),
    LinearConfig(64, 128, 4, 4, 2, 0, True),
]
SLIDING_CONFIGS = [
    DecodeConfig(32, 0, 4, 8),
    DecodeConfig(32, 0, 8, 7),
    DecodeConfig(16, 0, 4, 12),
    DecodeConfig(64, 0, 4, 3),
    DecodeConfig(32, 0, 4, 5),
    DecodeConfig(32, 0, 4, 7),
    DecodeConfig(64, 512, 4, 3, 1),
    DecodeConfig(32, 512, 4, 5, 2),
]
GLOBAL_CONFIGS = [
    DecodeConfig(32, 1024, 4, 5, 2),
    DecodeConfig(32, 512, 4, 5, 2),
    DecodeConfig(32, 1024, 4, 4, 2),
    DecodeConfig(32, 2048, 4, 5, 2),
    DecodeConfig(16, 1024, 4, 6, 2),
    DecodeConfig(32, 1024, 8, 5, 1),
]
PREFILL_CONFIGS = {
    "sliding": [
        PrefillConfig(128, 64, 8, 3),
        PrefillConfig(128, 32, 8, 4),
        PrefillConfig(64, 64, 4, 3),
    ],
    "global, two copies": [
        PrefillConfig(64, 32, 8, 2),
        PrefillConfig(64, 32, 8, 3),
        PrefillConfig(64, 64, 8, 2),
    ],
    "global": [
        PrefillConfig(64, 32, 8, 2),
        PrefillConfig(64, 32, 8, 3),
        PrefillConfig(64, 16, 8, 3),
    ],
}


@dataclass
class Result:
    name: str
    config: str
    microseconds: float
    gigabytes: float
    error: float
    extra: dict = field(default_factory=dict)


@triton.jit
def _read(source, out, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    base = tl.program_id(0).to(tl.int64) * (BLOCK * STEPS)
    total = tl.zeros([BLOCK], tl.int32)
    for step in range(STEPS):
        total ^= tl.load(source + base + step * BLOCK + tl.arange(0, BLOCK))
    tl.store(out + tl.program_id(0), tl.sum(total, 0))


def timed(calls: list[Callable[[], object]], repeats: int = 3) -> float:
    """Microseconds a call, from a graph of all of them; the median of the replays."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        calls[0]()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for call in calls:
                call()
        graph.replay()
        times = []
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1e3 / len(calls))
    return sorted(times)[len(times) // 2]


def relative(out: torch.Tensor, reference: torch.Tensor) -> float:
    error = (out.double() - reference.double()).norm() / reference.double().norm()
    return float(error.nan_to_num(float("inf")))


def read_bandwidth(pool: torch.Tensor) -> float:
    """Bytes per second of reading 2 GiB, the better of a plain kernel and torch's sum."""
    source = pool.view(torch.int32)[: 1 << 29]
    block, steps = 2048, 16
    out = torch.empty(source.numel() // (block * steps), dtype=torch.int32, device=pool.device)
    kernel = timed([lambda: _read[(out.numel(),)](source, out, block, steps)] * 4, 5)
    wide = source.view(torch.float32)
    plain = timed([lambda: wide.sum()] * 4, 5)
    return source.numel() * 4 / min(kernel, plain) * 1e6


class Bench:
    """Buffers, and one job per (kernel, shape, configuration)."""

    def __init__(self, elements: int) -> None:
        self.device = torch.device("cuda")
        self.pool = torch.empty(elements, dtype=torch.bfloat16, device=self.device)
        self.checked: dict[tuple, torch.Tensor] = {}

    def fill(self) -> None:
        for part in self.pool.split(1 << 28):
            part.normal_()

    def randn(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=self.device).to(torch.bfloat16)

    def views(self, *shape: int, at_most: int = 6) -> list[torch.Tensor]:
        size = torch.Size(shape).numel()
        count = max(1, min(at_most, self.pool.numel() // size))
        return [self.pool[i * size : (i + 1) * size].view(shape) for i in range(count)]

    def linear(self, name: str, rows: int, config: LinearConfig, once: bool) -> Result:
        n, inner, gated = LAYERS[name]
        weights = self.views(n * (2 if gated else 1), inner, at_most=1 if once else 6)
        torch.manual_seed(1)
        x = self.randn(rows, inner)
        if config.splits > 1:
            out = torch.full((config.splits, rows, n), float("nan"), device=self.device)
        else:
            out = torch.full((rows, n), float("nan"), device=self.device).bfloat16()
        run = functools.partial(skinny_linear, x, gated=gated, config=config, pdl=True, out=out)
        if once:
            run(weight=weights[0])
            return Result(name, "", 0, 0, 0)
        run(weight=weights[0])
        part = slice(0, 512)
        gate_rows = (
            weights[0][part] if not gated else torch.cat([weights[0][part], weights[0][n:][part]])
        )
        whole = out.sum(0) if config.splits > 1 else out
        error = relative(whole[:, part], skinny_linear_reference(x, gate_rows, gated))
        assert not whole.isnan().any()
        time_us = timed([functools.partial(run, weight=w) for w in weights] * 2)
        return Result(f"{name} {rows}", describe(config), time_us,
                      weights[0].numel() * 2 / 1e9, error)  # fmt: skip

    def decode(self, kind: str, rows: int, q_len: int, context: int, config: DecodeConfig,
               once: bool) -> Result:  # fmt: skip
        sliding = kind == "sliding"
        kv_heads, head_dim = (16, 256) if sliding else (4, 512)
        held = min(context, 1024 + q_len + 1) if sliding else context
        first = max(0, context - q_len - 1023) // PAGE * PAGE if sliding else 0
        pages = -(-context // PAGE) - first // PAGE
        page_size = PAGE * kv_heads * head_dim
        count = min(rows * pages * 8, self.pool.numel() // (2 if sliding else 1) // page_size)
        caches = self.views(count, PAGE, kv_heads, head_dim, at_most=2)
        if sliding and len(caches) < 2:
            caches = caches * 2
        order = torch.randperm(count, device=self.device).int()
        sets = max(1, min(6, count // (rows * pages)))
        tables = [order[i * rows * pages :][: rows * pages].view(rows, pages) for i in range(sets)]
        lens = torch.full((rows,), context, dtype=torch.int32, device=self.device)
        firsts = torch.full((rows,), first, dtype=torch.int32, device=self.device)
        q = self.randn(rows * q_len, HEADS, head_dim) * 0.05
        out = torch.full_like(q, float("nan"))
        angles = torch.arange(65536, device=self.device)[:, None] * 1e6 ** (
            -2 * torch.arange(64, device=self.device) / 512
        )
        one_copy = None if sliding else OneCopy(self.randn(512), angles.cos(), angles.sin())
        workspace = None
        if config.split:
            need = decode_workspace(rows, q_len, HEADS, head_dim, pages * PAGE, config.split)
            workspace = torch.full((need,), float("nan"), device=self.device)
        shared = {"q_len": q_len, "window": 1024 if sliding else 0,
                  "first_pos": firsts if sliding else None, "one_copy": one_copy}  # fmt: skip
        caches_in = (caches[0], caches[1] if sliding else None)

        def run(table: torch.Tensor) -> torch.Tensor:
            return paged_decode(q, *caches_in, table, lens, out, workspace=workspace,
                                config=config, pdl=True, **shared)  # fmt: skip

        run(tables[0])
        if once:
            return Result(kind, "", 0, 0, 0)
        wanted = paged_decode_reference(
            q[: 2 * q_len], *caches_in, tables[0][:2], lens[:2],
            **{**shared, "first_pos": firsts[:2] if sliding else None},
        )  # fmt: skip
        error = relative(out[: 2 * q_len], wanted)
        assert not out.isnan().any()
        time_us = timed([functools.partial(run, t) for t in tables] * 2)
        read = rows * held * kv_heads * head_dim * 2 * (2 if sliding else 1) / 1e9
        return Result(f"decode {kind} {rows}x{q_len} {context}", describe(config), time_us,
                      read, error)  # fmt: skip

    def prefill(self, kind: str, config: PrefillConfig, once: bool) -> Result:
        """The second chunk of 4,096 tokens of a prompt of 8,192; gigabytes holds teraflops."""
        sliding = kind == "sliding"
        tokens, context = 4096, 8192
        kv_heads, head_dim, window = (16, 256, 1024) if sliding else (4, 512, 0)
        first = (context - tokens - 1023) // PAGE * PAGE if sliding else 0
        pages = (context - first) // PAGE
        two_copies = kind != "global"
        caches = self.views(pages, PAGE, kv_heads, head_dim, at_most=2)
        table = torch.randperm(pages, device=self.device).int()[None]
        q = self.randn(tokens, HEADS, head_dim) * 0.05
        out = torch.full_like(q, float("nan"))
        at = torch.arange(65536, device=self.device)[:, None]
        angles = at * 1e6 ** (-2 * torch.arange(64, device=self.device) / 512)
        one_copy = None if two_copies else OneCopy(self.randn(512), angles.cos(), angles.sin())
        lens = torch.tensor([context], dtype=torch.int32, device=self.device)
        starts = torch.tensor([0, tokens], dtype=torch.int32, device=self.device)
        options = {
            "window": window, "one_copy": one_copy,
            "first_pos": torch.tensor([first], dtype=torch.int32, device=self.device),
        }  # fmt: skip
        inputs = (caches[0], caches[1] if two_copies else None, table)

        def run() -> torch.Tensor:
            return paged_prefill(q, *inputs, starts, lens, out, config=config, **options)

        run()
        if once:
            return Result(kind, "", 0, 0, 0)
        tail = torch.tensor([0, 64], dtype=torch.int32, device=self.device)
        error = relative(
            out[-64:], paged_prefill_reference(q[-64:], *inputs, tail, lens, **options)
        )
        assert not out.isnan().any()
        pairs = tokens * (window or context - tokens / 2)
        return Result(f"prefill {kind}", describe(config), timed([run] * 3),
                      pairs * HEADS * head_dim * 4 / 1e12, error)  # fmt: skip

    def layer(self, context: int, once: bool) -> Result:
        """Four sliding layers and a global one as the decode path runs them, per five layers."""
        rows, eps_weight = 8, self.randn(HIDDEN)
        residual, x = self.randn(rows, HIDDEN), self.randn(rows, HIDDEN)
        hidden, y = self.randn(rows, INNER), self.randn(rows, HIDDEN)
        offset, calls, size = 0, [], 0
        lens = torch.full((rows,), context, dtype=torch.int32, device=self.device)
        at = torch.zeros(rows, dtype=torch.int64, device=self.device)
        angles = torch.rand(65536, 128, device=self.device)
        cos, sin = angles.cos(), angles.sin()
        short = (cos[:, :64].contiguous(), sin[:, :64].contiguous())

        def take(*shape: int) -> torch.Tensor:
            nonlocal offset
            amount = torch.Size(shape).numel()
            view = self.pool[offset : offset + amount].view(shape)
            offset += amount
            return view

        for sliding in (True, True, True, True, False):
            kv, d = (16, 256) if sliding else (4, 512)
            width = HEADS * d + kv * d * (2 if sliding else 1)
            first = max(0, context - 1024) // PAGE * PAGE if sliding else 0
            pages = -(-context // PAGE) - first // PAGE
            caches = [take(rows * pages + 1, PAGE, kv, d) for _ in range(2 if sliding else 1)]
            table = (torch.randperm(rows * pages, device=self.device).int() + 1).view(rows, pages)
            firsts = torch.full((rows,), first, dtype=torch.int32, device=self.device)
            norm_weight = self.randn(d)
            qkv, q = self.randn(rows, width), self.randn(rows, HEADS, d)
            attended = torch.empty_like(q)
            one_copy = None if sliding else OneCopy(norm_weight, *short)
            space = (
                None
                if sliding
                else torch.empty(
                    decode_workspace(rows, 1, HEADS, d, pages * PAGE, 512), device=self.device
                )
            )
            part = functools.partial
            calls += [
                part(skinny_linear, x, take(width, HIDDEN), qkv, pdl=True),
                part(norm_rotate_write, qkv, norm_weight, norm_weight if sliding else None,
                     *((cos, sin) if sliding else short), at, at, q, caches[0],
                     caches[1] if sliding else None, pdl=True),
                part(paged_decode, q, caches[0], caches[1] if sliding else None, table, lens,
                     attended, window=1024 if sliding else 0, first_pos=firsts,
                     one_copy=one_copy, workspace=space, pdl=True),
                part(skinny_linear, attended.view(rows, -1), take(HIDDEN, HEADS * d), y, pdl=True),
                part(add_norm, y, residual, eps_weight, eps_weight, x, pdl=True),
                part(skinny_linear, x, take(2 * INNER, HIDDEN), hidden, gated=True, pdl=True),
                part(skinny_linear, hidden, take(HIDDEN, INNER), y, pdl=True),
                part(add_norm, y, residual, eps_weight, eps_weight, x, pdl=True),
            ]  # fmt: skip
            held = min(context, 1024) if sliding else context
            size += rows * held * kv * d * 2 * (2 if sliding else 1)
            size += 2 * (width * HIDDEN + HIDDEN * HEADS * d + 3 * HIDDEN * INNER)

        def run() -> None:
            for call in calls:
                call()

        run()
        if once:
            return Result("layer", "", 0, 0, 0)
        return Result(f"layers 4+1, {context}", "", timed([run], 5), size / 1e9, 0.0)

    def sampling(self, rows: int, filtered: bool, once: bool) -> Result:
        """The error is the share of rows whose token is not the torch sampler's."""
        logits = [torch.randn(rows, VOCABULARY, device=self.device) * 3 for _ in range(4)]
        ones = torch.ones(rows, device=self.device)
        at = torch.arange(rows, device=self.device)
        batch = SamplingBatch(
            temperature=ones, top_k=(ones * (64 if filtered else 0)).long(),
            top_p=ones * (0.95 if filtered else 1.0), min_p=ones * 0.0, seeds=at,
            positions=at, max_top_k=0, greedy=False, filtered=filtered,
        )  # fmt: skip
        out = torch.full((rows,), -1, dtype=torch.int64, device=self.device)
        space = torch.empty(sampler_workspace(rows, VOCABULARY), device=self.device)
        calls = [functools.partial(sample_tokens, x, batch, out, space, softcap=30.0, pdl=True)
                 for x in logits]  # fmt: skip
        calls[0]()
        if once:
            return Result("sampling", "", 0, 0, 0)
        wanted = sample(30 * torch.tanh(logits[0] / 30), batch)
        error = float((out != wanted).float().mean())
        return Result(f"sampling {rows}, {'k64 p.95' if filtered else 'no filter'}", "",
                      timed(calls * 4), logits[0].numel() * 4 / 1e9, error)  # fmt: skip

    def small(self, name: str, rows: int, once: bool) -> Result:
        residuals = [self.randn(rows, HIDDEN) for _ in range(4)]
        weight, out = self.randn(HIDDEN), self.randn(rows, HIDDEN)
        error = 0.0
        if name.startswith("add_norm"):
            parts = 4 if name.endswith("4") else 1
            y = torch.randn(parts, rows, HIDDEN, device=self.device)
            y = y if parts > 1 else y[0].bfloat16()
            wanted = add_norm_reference(y, residuals[0], weight, weight)[1]
            calls = [functools.partial(add_norm, y, r, weight, weight, out, pdl=True)
                     for r in residuals]  # fmt: skip
            calls[0]()
            error = relative(out, wanted)
        else:
            sliding = name == "rotary sliding"
            d, kv, pairs = (256, 16, 128) if sliding else (512, 4, 64)
            qkv = self.randn(rows, (HEADS + kv * (2 if sliding else 1)) * d)
            q_out = self.randn(rows, HEADS, d)
            caches = self.views(256, PAGE, kv, d, at_most=2)
            table = torch.rand(4096, pairs, device=self.device)
            at = torch.arange(rows, device=self.device)
            norm_weight = self.randn(d)
            calls = [functools.partial(
                norm_rotate_write, qkv, norm_weight, norm_weight if sliding else None, table,
                table, at, at, q_out, caches[0], caches[1] if sliding else None, pdl=True,
            )] * 4  # fmt: skip
            calls[0]()
        if once:
            return Result(name, "", 0, 0, 0)
        return Result(f"{name} {rows}", "", timed(calls * 10), 0, error)


def describe(config: object) -> str:
    return ",".join(str(int(value)) for value in asdict(config).values())  # type: ignore[call-overload]


def jobs(only: list[str], quick: bool) -> list[tuple]:
    """Every job as (method, arguments); small enough to send to the compile workers."""
    found: list[tuple] = []
    if "linear" in only:
        for name, (_, _, gated) in LAYERS.items():
            configs = GATED_CONFIGS if gated else LINEAR_CONFIGS
            if name == "lm_head":
                configs = [c for c in configs if c.splits == 1]
            found += [("linear", name, 8, c) for c in configs]
            if name in ("qkv sliding", "down"):
                found += [("linear", name, 64, c) for c in WIDE_CONFIGS]
    if "decode" in only:
        found += [("decode", "sliding", 8, 1, 7000, c) for c in SLIDING_CONFIGS]
        found += [("decode", "sliding", 8, 8, 7000, c) for c in SLIDING_CONFIGS[:2]]
        found += [("decode", "sliding", rows, 1, 7000, SLIDING_CONFIGS[0]) for rows in (16, 32)]
        found += [("decode", "global", 8, 1, 7000, c) for c in GLOBAL_CONFIGS]
        found += [("decode", "global", 8, 8, 7000, DecodeConfig(32, 1024, w, 4, 1)) for w in (4, 8)]
        found += [
            ("decode", "global", 8, 1, context, c)
            for context in (1024, 15000, 32000)
            for c in GLOBAL_CONFIGS[:2]
        ]
        found += [("decode", "global", rows, 1, 7000, GLOBAL_CONFIGS[0]) for rows in (16, 32)]
    if "prefill" in only:
        for kind, configs in PREFILL_CONFIGS.items():
            found += [("prefill", kind, c) for c in configs]
    if "sampling" in only:
        found += [("sampling", rows, kept) for rows in (8, 64) for kept in (False, True)]
    if "layer" in only:
        found += [("layer", context) for context in (1024, 7000, 15000)]
    if "small" in only:
        found += [("small", name, 8) for name in
                  ("add_norm", "add_norm 4", "rotary sliding", "rotary global")]  # fmt: skip
    return found


def compile_job(job: tuple) -> str:
    """Run a job once on unset memory, so that the shared disk cache holds its kernels."""
    try:
        global _bench
        if "_bench" not in globals():
            _bench = Bench(POOL)
        getattr(_bench, job[0])(*job[1:], once=True)
        torch.cuda.synchronize()
    except Exception as error:
        return f"{job}: {error!r}"[:400]
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="linear,small,sampling,layer,prefill,decode")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--workers", type=int, default=min(10, os.cpu_count() or 1))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks/kernels.py needs a CUDA device", file=sys.stderr)
        return 2
    todo = jobs(arguments.only.split(","), arguments.quick)
    begin = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.workers) as workers:
        failures = [f for f in workers.imap_unordered(compile_job, todo) if f]
    print(f"{len(todo)} jobs compiled in {time.perf_counter() - begin:.0f} s", flush=True)
    for failure in failures:
        print("FAILED", failure)
    bench = Bench(POOL)
    bench.fill()
    bandwidth = read_bandwidth(bench.pool)
    print(f"read bandwidth {bandwidth / 1e12:.3f} TB/s", flush=True)
    results = []
    for job in todo:
        try:
            result = getattr(bench, job[0])(*job[1:], once=False)
        except Exception as error:
            print("FAILED", job, repr(error)[:300], flush=True)
            continue
        peak = 989e12 if job[0] == "prefill" else bandwidth
        scale = 1e12 if job[0] == "prefill" else 1e9
        share = result.gigabytes * scale / (result.microseconds * 1e-6) / peak
        print(
            f"{result.name:32s} {result.config:24s} {result.microseconds:9.1f} us  "
            f"{share:6.1%}  error {result.error:.1e}",
            flush=True,
        )
        results.append({**asdict(result), "share": round(share, 4)})
    print(json.dumps({"device": torch.cuda.get_device_name(), "bandwidth": bandwidth,
                      "seconds": time.perf_counter() - begin, "results": results}))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
