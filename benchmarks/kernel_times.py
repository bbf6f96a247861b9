"""Checks the kernels against their references and times them in the shapes of Gemma-4-31B.

    python benchmarks/kernel_times.py [--only launch,linear,decode,small,layer,chain,dense,...]

Every time is that of one call inside a replayed CUDA graph that walks over several sets of buffers,
so that neither the L2 cache nor the host helps. Bandwidth counts the bytes a kernel must read once;
its share is that of the read bandwidth measured in the same run. Ends with one line of JSON, and
with 1 where a kernel fails or errs by more than ``ERROR_LIMIT``.
"""

import argparse
import functools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

import torch
from support.attention_jobs import AttentionJobs
from support.layer_jobs import (
    CHAINS,
    HEADS,
    HIDDEN,
    INNER,
    KINDS,
    LAYERS,
    PAGE,
    POOL,
    VOCABULARY,
    describe,
    jobs,
)
from support.read_bandwidth import read_bandwidth
from support.timing_buffers import Result, relative, timed

from eightfold.kernels.attention.one_copy_keys import OneCopy
from eightfold.kernels.attention.paged_decode import default_decode_config, paged_decode
from eightfold.kernels.attention.split_kv import decode_workspace_size
from eightfold.kernels.layers.gated_gelu import gated_gelu, gated_gelu_reference
from eightfold.kernels.layers.layer_tail import (
    COUNTERS,
    LayerTailWeights,
    layer_tail,
    layer_tail_reference,
)
from eightfold.kernels.layers.linear_few_rows import (
    LinearConfig,
    linear_few_rows,
    linear_few_rows_reference,
)
from eightfold.kernels.layers.linear_many_rows import linear_many_rows, linear_many_rows_reference
from eightfold.kernels.layers.rms_norm import add_rms_norm, add_rms_norm_reference
from eightfold.kernels.layers.rotary_embedding import norm_rope_and_cache
from eightfold.kernels.sampling.torch_sampler import SamplingBatch, sample
from eightfold.kernels.sampling.triton_sampler import sample_tokens, sampler_workspace_size

ERROR_LIMIT = 1e-2  # relative Frobenius norm; of draws, share of tokens that differ


class Bench(AttentionJobs):
    """Every job; attention's are inherited."""

    def linear(self, name: str, rows: int, config: LinearConfig, once: bool) -> Result:
        n, inner, gated = LAYERS[name]
        weights = self.views(n * (2 if gated else 1), inner, at_most=1 if once else 6)
        torch.manual_seed(1)
        x = self.randn(rows, inner)
        if config.splits > 1:
            out = torch.full((config.splits, rows, n), float("nan"), device=self.device)
        else:
            out = torch.full((rows, n), float("nan"), device=self.device).bfloat16()
        run = functools.partial(linear_few_rows, x, gated=gated, config=config, pdl=True, out=out)
        if once:
            run(weight=weights[0])
            return Result(name, "", 0, 0, 0)
        run(weight=weights[0])
        part = slice(0, 512)
        gate_rows = (
            weights[0][part] if not gated else torch.cat([weights[0][part], weights[0][n:][part]])
        )
        whole = out.sum(0) if config.splits > 1 else out
        error = relative(whole[:, part], linear_few_rows_reference(x, gate_rows, gated))
        assert not whole.isnan().any()
        time_us = timed([functools.partial(run, weight=w) for w in weights] * 2)
        return Result(f"{name} {rows}", describe(config), time_us,
                      weights[0].numel() * 2 / 1e9, error)  # fmt: skip

    def layer(self, context: int, chain: str, once: bool) -> Result:
        """Four sliding layers and a global one as the decode path runs them, per five layers.

        chain: which of ``CHAINS`` sets the linear layers.
        """
        self._taken = 0
        self._configs = CHAINS[chain]
        shared = self._step(8)
        calls: list[Callable[[], object]] = []
        size = 0
        for sliding in (True, True, True, True, False):
            more, read = self._layer(sliding, context, shared)
            calls += more
            size += read

        def run() -> None:
            for call in calls:
                call()

        run()
        if once:
            return Result("layer", "", 0, 0, 0)
        return Result(f"layers 4+1, {context}", chain, timed([run], 5), size / 1e9, 0.0)

    def launch(self, kind: str, rows: int, once: bool) -> Result:
        """``layer_tail`` in a row over layers of their own weights."""
        attended, following = (8192, 16384) if kind == "sliding" else (16384, 18432)
        sizes = [(HIDDEN, attended), (2 * INNER, HIDDEN), (HIDDEN, INNER), (following, HIDDEN)]
        self._taken, norm = 0, torch.ones(HIDDEN, device=self.device).bfloat16()
        layers = [
            LayerTailWeights(*(self._take(*size) for size in sizes), norm, norm, norm, norm, 1.0)
            for _ in range(1 if once else 5)
        ]
        x, residual, out = (self.randn(rows, n) for n in (attended, HIDDEN, following))
        buffers = (self.randn(rows, HIDDEN), self.randn(rows, HIDDEN), self.randn(rows, INNER))
        counters = torch.zeros(len(layers), COUNTERS, dtype=torch.int32, device=self.device)

        def run() -> None:
            counters.zero_()
            for layer, own in zip(layers, counters, strict=True):
                layer_tail(x, residual, layer, buffers, out, own, pdl=True)

        run()
        if once:
            return Result("launch", "", 0, 0, 0)
        before = residual.clone()
        counters.zero_()
        layer_tail(x, residual, layers[0], buffers, out, counters[0])
        error = relative(out, layer_tail_reference(x, before, layers[0])[2])
        size = sum(n * k for n, k in sizes) * 2
        return Result(f"layer_tail {kind} {rows}", "", timed([run], 5) / len(layers), size / 1e9,
                      error)  # fmt: skip

    def dense(self, rows: int, own: bool, once: bool) -> Result:
        """Products of four sliding layers and a global one, for as long as power limits them.

        Gigabytes holds teraflops. own: by ``linear_many_rows``, else by cuBLAS and ``gated_gelu``.
        """
        self._taken, flops, error = 0, 0, 0.0
        hidden, apart = self.randn(rows, INNER), self.randn(rows, 2 * INNER)
        calls: list[Callable[[], object]] = []
        attention = [("qkv sliding", "o sliding")] * 4 + [("qk global", "o global")]
        for name in (name for pair in attention for name in (*pair, "gate_up", "down")):
            n, inner, gated = LAYERS[name]
            weight, x = self._take(n * (2 if gated else 1), inner), self.randn(rows, inner)
            out = hidden if gated else self.randn(rows, n)
            flops += 2 * rows * weight.numel()
            if own:
                product = functools.partial(linear_many_rows, x, weight, out, gated=gated, pdl=True)
                product()
                if not once:
                    wanted = linear_many_rows_reference(x[:8], weight, gated)
                    error = max(error, relative(out[:8], wanted))
                calls.append(product)
            else:
                calls.append(functools.partial(torch.mm, x, weight.T, out=apart if gated else out))
                calls += [functools.partial(gated_gelu, apart, out)] if gated else []
        for call in calls:
            call()
        if once:
            return Result("dense", "", 0, 0, 0)

        def run() -> None:
            for call in calls:
                call()

        by = "linear_many_rows" if own else "cuBLAS and gated_gelu"
        return Result(f"products 4+1, {rows}", by, timed([run], 250), flops / 1e12, error)

    def _take(self, *shape: int) -> torch.Tensor:
        """The next part of the pool that no layer has taken."""
        amount = torch.Size(shape).numel()
        view = self.pool[self._taken : self._taken + amount].view(shape)
        self._taken += amount
        return view

    def _step(self, rows: int) -> dict[str, torch.Tensor]:
        """What all layers of a step share."""
        return {
            "weight": self.randn(HIDDEN), "residual": self.randn(rows, HIDDEN),
            "x": self.randn(rows, HIDDEN), "hidden": self.randn(rows, INNER),
            "y": self.randn(rows, HIDDEN), "angles": torch.rand(65536, 128, device=self.device),
        }  # fmt: skip

    def _layer(
        self, sliding: bool, context: int, shared: dict[str, torch.Tensor]
    ) -> tuple[list[Callable[[], object]], int]:
        """The launches of one layer, and the bytes they must read."""
        x, y, residual, weight = (shared[name] for name in ("x", "y", "residual", "weight"))
        rows = x.shape[0]
        kv, d = (16, 256) if sliding else (4, 512)
        copies = 2 if sliding else 1
        width = HEADS * d + kv * d * copies
        first = max(0, context - 1024) // PAGE * PAGE if sliding else 0
        pages = -(-context // PAGE) - first // PAGE
        caches = [self._take(rows * pages + 1, PAGE, kv, d) for _ in range(copies)]
        caches_in = (caches[0], caches[1] if sliding else None)
        table = (torch.randperm(rows * pages, device=self.device).int() + 1).view(rows, pages)
        firsts = torch.full((rows,), first, dtype=torch.int32, device=self.device)
        lens = torch.full((rows,), context, dtype=torch.int32, device=self.device)
        at = torch.zeros(rows, dtype=torch.int64, device=self.device)
        norm_weight, angles = self.randn(d), shared["angles"][:, : 128 if sliding else 64]
        cos, sin = angles.cos().contiguous(), angles.sin().contiguous()
        qkv, q = self.randn(rows, width), self.randn(rows, HEADS, d)
        attended, space = torch.empty_like(q), None
        if not sliding:
            config = default_decode_config(0, one_copy=True)
            need = decode_workspace_size(
                rows, 1, HEADS, d, pages * PAGE, config.split_tokens, config.short_split_tokens
            )
            space = torch.empty(need, device=self.device)
        part, hidden = functools.partial, shared["hidden"]
        kind = "sliding" if sliding else "global"
        project, y_of_attention = self._product(f"o {kind}", y)
        down, y_of_feedforward = self._product("down", y)
        first_config = self._configs.get("qkv sliding" if sliding else "qk global")
        calls: list[Callable[[], object]] = [
            part(linear_few_rows, x, self._take(width, HIDDEN), qkv, config=first_config, pdl=True),
            part(norm_rope_and_cache, qkv, norm_weight, norm_weight if sliding else None, cos, sin,
                 at, at, q, *caches_in, pdl=True),
            part(paged_decode, q, *caches_in, table, lens, attended, first_pos=firsts,
                 window=1024 if sliding else 0, workspace=space, pdl=True,
                 one_copy=None if sliding else OneCopy(norm_weight, cos, sin)),
            part(project, attended.view(rows, -1), self._take(HIDDEN, HEADS * d)),
            part(add_rms_norm, y_of_attention, residual, weight, weight, x, pdl=True),
            part(linear_few_rows, x, self._take(2 * INNER, HIDDEN), hidden, gated=True,
                 config=self._configs.get("gate_up"), pdl=True),
            part(down, hidden, self._take(HIDDEN, INNER)),
            part(add_rms_norm, y_of_feedforward, residual, weight, weight, x, pdl=True),
        ]  # fmt: skip
        held = min(context, 1024) if sliding else context
        read = rows * held * kv * d * 2 * copies
        return calls, read + 2 * (width * HIDDEN + HIDDEN * HEADS * d + 3 * HIDDEN * INNER)

    def _product(self, name: str, y: torch.Tensor) -> tuple[Callable[..., object], torch.Tensor]:
        """A product into y, or into parts of it, and where its result lies."""
        config = self._configs.get(name)
        if config and config.splits > 1:
            y = torch.empty(config.splits, *y.shape, device=self.device)
        return functools.partial(linear_few_rows, out=y, config=config, pdl=True), y

    def sampling(self, rows: int, filtered: bool, once: bool) -> Result:
        """The error is the share of rows whose token is not the torch sampler's."""
        logits = [torch.randn(rows, VOCABULARY, device=self.device) * 3 for _ in range(4)]
        ones = torch.ones(rows, device=self.device)
        at = torch.arange(rows, device=self.device)
        batch = SamplingBatch(
            temperature=ones, top_k=(ones * (64 if filtered else 0)).long(),
            top_p=ones * (0.95 if filtered else 1.0), min_p=ones * 0.0, seeds=at,
            positions=at, max_top_k=0, all_greedy=False, any_filtered=filtered,
        )  # fmt: skip
        out = torch.full((rows,), -1, dtype=torch.int64, device=self.device)
        space = torch.empty(sampler_workspace_size(rows, VOCABULARY), device=self.device)
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
        """Norms, rotary and activation; at 4,096 rows bytes read and written count."""
        error, parts = 0.0, 4 if name.endswith("4") else 1
        if name.startswith("add_rms_norm"):
            residuals = [self.randn(rows, HIDDEN) for _ in range(4)]
            weight, out = self.randn(HIDDEN), self.randn(rows, HIDDEN)
            y = torch.randn(parts, rows, HIDDEN, device=self.device)
            y = y if parts > 1 else y[0].bfloat16()
            wanted = add_rms_norm_reference(y, residuals[0], weight, weight)[1]
            calls = [functools.partial(add_rms_norm, y, r, weight, weight, out, pdl=True)
                     for r in residuals]  # fmt: skip
            calls[0]()
            error, size = relative(out, wanted), 4 * rows * HIDDEN
        elif name == "gated_gelu":
            out = self.randn(rows, INNER)
            inputs = self.views(rows, 2 * INNER, at_most=3)
            calls = [functools.partial(gated_gelu, each, out) for each in inputs]
            calls[0]()
            error = relative(out[:8], gated_gelu_reference(inputs[0][:8]))
            size = 3 * rows * INNER
        else:
            sliding = name == "rotary sliding"
            d, kv, pairs = (256, 16, 128) if sliding else (512, 4, 64)
            width = (HEADS + kv * (2 if sliding else 1)) * d
            q_out, table = self.randn(rows, HEADS, d), torch.rand(4096, pairs, device=self.device)
            caches = self.views(256, PAGE, kv, d, at_most=2)
            at = torch.arange(rows, device=self.device)
            norm_weight = self.randn(d)
            calls = [functools.partial(
                norm_rope_and_cache, self.randn(rows, width), norm_weight,
                norm_weight if sliding else None, table, table, at, at, q_out, caches[0],
                caches[1] if sliding else None, pdl=True,
            ) for _ in range(3)]  # fmt: skip
            calls[0]()
            size = 2 * rows * width
        if once:
            return Result(name, "", 0, 0, 0)
        read = size * 2 / 1e9 if rows > 64 else 0.0
        return Result(f"{name} {rows}", "", timed(calls * 10), read, error)


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
    parser.add_argument("--only", default=",".join(kind for kind in KINDS if kind != "chain"))
    parser.add_argument("--workers", type=int, default=min(10, os.cpu_count() or 1))
    arguments = parser.parse_args()
    only = arguments.only.split(",")
    if not set(only) <= set(KINDS):
        parser.error(f"--only takes {', '.join(KINDS)}, with commas between them")
    if arguments.workers < 1:
        parser.error(f"--workers must be at least 1, not {arguments.workers}")
    if not torch.cuda.is_available():
        print("benchmarks/kernel_times.py needs a CUDA device", file=sys.stderr)
        return 2
    todo = jobs(only)
    begin = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.workers) as workers:
        failures = [f for f in workers.imap_unordered(compile_job, todo) if f]
    print(f"{len(todo)} jobs compiled in {time.perf_counter() - begin:.0f} s", flush=True)
    for failure in failures:
        print("FAILED", failure)
    failed = len(failures)
    bench = Bench(POOL)
    bench.fill()
    bandwidth = read_bandwidth(bench.device)
    print(f"read bandwidth {bandwidth / 1e12:.3f} TB/s", flush=True)
    results = []
    for job in todo:
        try:
            result = getattr(bench, job[0])(*job[1:], once=False)
        except Exception as error:
            print("FAILED", job, repr(error)[:300], flush=True)
            failed += 1
            continue
        peak = 989e12 if job[0] in ("prefill", "dense") else bandwidth
        scale = 1e12 if job[0] in ("prefill", "dense") else 1e9
        share = result.gigabytes * scale / (result.microseconds * 1e-6) / peak
        print(
            f"{result.name:32s} {result.config:24s} {result.microseconds:9.1f} us  "
            f"{share:6.1%}  error {result.error:.1e}",
            flush=True,
        )
        if result.error > ERROR_LIMIT:
            print("FAILED", job, "is wrong", flush=True)
            failed += 1
        results.append({**asdict(result), "share": round(share, 4)})
    print(json.dumps({"device": torch.cuda.get_device_name(), "bandwidth": bandwidth,
                      "seconds": time.perf_counter() - begin, "results": results}))  # fmt: skip
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
