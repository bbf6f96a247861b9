"""Checks the kernels against their references and times them in the shapes of Gemma-4-31B.

Experts are timed in the shapes of other models.

    python benchmarks/kernel_times.py [--only launch,linear,decode,small,layer,chain,dense,...]

Each time is that of one call in a replayed CUDA graph that walks over several sets of buffers, so
that neither the L2 cache nor the host helps. The bandwidth counts the bytes that a kernel must read
once; its share is that of the read bandwidth measured in the same run. The last line is JSON. The
exit code is 1 if a kernel fails, or if its error exceeds `ERROR_LIMIT`.
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
from typing import Any

import torch
from support.kernel_jobs.attention_jobs import time_decode, time_prefill
from support.kernel_jobs.elementwise_jobs import time_sampling, time_small
from support.kernel_jobs.expert_jobs import time_few_experts, time_many_experts
from support.kernel_jobs.graph_timing import BufferPool, KernelTiming
from support.kernel_jobs.job_list import KINDS, POOL_ELEMENTS, list_jobs
from support.kernel_jobs.layer_jobs import time_layers
from support.kernel_jobs.linear_jobs import time_few_rows, time_layer_tail, time_many_rows
from support.read_bandwidth import read_bandwidth

ERROR_LIMIT = 1e-2  # relative Frobenius norm; of sampling, the share of tokens that differ
PEAK_FLOPS = 989e12  # of an H100 SXM in bfloat16
COMPUTE_BOUND = ("prefill", "dense", "grouped")  # jobs that are limited by arithmetic

JOBS: dict[str, Callable[..., KernelTiming | None]] = {
    "launch": time_layer_tail,
    "linear": time_few_rows,
    "small": time_small,
    "sampling": time_sampling,
    "layer": time_layers,
    "prefill": time_prefill,
    "dense": time_many_rows,
    "decode": time_decode,
    "experts": time_few_experts,
    "grouped": time_many_experts,
}


@functools.cache
def compilation_pool() -> BufferPool:
    """Return this process's pool, which jobs run on uninitialized."""
    return BufferPool(POOL_ELEMENTS)


def compile_job(job: tuple) -> str:
    """Run a job once, so that the disk cache holds its kernels; return an error, or ""."""
    try:
        JOBS[job[0]](compilation_pool(), *job[1:], once=True)
        torch.cuda.synchronize()
    except Exception as error:
        return f"{job}: {error!r}"[:400]
    return ""


def compile_all(jobs: list[tuple], workers: int) -> int:
    """Compile the jobs' kernels in several processes; return how many jobs failed."""
    begin = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as pool:
        failures = [failure for failure in pool.imap_unordered(compile_job, jobs) if failure]
    print(f"{len(jobs)} jobs compiled in {time.perf_counter() - begin:.0f} s", flush=True)
    for failure in failures:
        print("FAILED", failure)
    return len(failures)


def time_job(pool: BufferPool, job: tuple, bandwidth: float) -> tuple[dict[str, Any] | None, bool]:
    """Time a job and print its line; return its figures, if it ran, and whether it is right."""
    try:
        result = JOBS[job[0]](pool, *job[1:], once=False)
        assert result is not None
    except Exception as error:
        print("FAILED", job, repr(error)[:300], flush=True)
        return None, False
    peak, scale = (PEAK_FLOPS, 1e12) if job[0] in COMPUTE_BOUND else (bandwidth, 1e9)
    share = result.gigabytes * scale / (result.microseconds * 1e-6) / peak
    print(
        f"{result.name:32s} {result.config:24s} {result.microseconds:9.1f} us  "
        f"{share:6.1%}  error {result.error:.1e}",
        flush=True,
    )
    right = result.error <= ERROR_LIMIT
    if not right:
        print("FAILED", job, "is wrong", flush=True)
    return {**asdict(result), "share": round(share, 4)}, right


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options; exit with code 2 and one sentence if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only",
        default=",".join(kind for kind in KINDS if kind != "chain"),
        help="kinds of jobs, separated by commas (%(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=min(10, os.cpu_count() or 1),
        help="processes that compile (%(default)s)",
    )
    arguments = parser.parse_args()
    arguments.only = arguments.only.split(",")
    if not set(arguments.only) <= set(KINDS):
        parser.error(f"--only takes {', '.join(KINDS)}, separated by commas")
    if arguments.workers < 1:
        parser.error(f"--workers must be at least 1, not {arguments.workers}")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        print("benchmarks/kernel_times.py needs a CUDA device.", file=sys.stderr)
        return 2
    begin = time.perf_counter()
    jobs = list_jobs(arguments.only)
    failed = compile_all(jobs, arguments.workers)
    pool = BufferPool(POOL_ELEMENTS)
    pool.fill()
    bandwidth = read_bandwidth(pool.device)
    print(f"read bandwidth {bandwidth / 1e12:.3f} TB/s", flush=True)
    results = []
    for job in jobs:
        result, right = time_job(pool, job, bandwidth)
        failed += not right
        if result is not None:
            results.append(result)
    print(json.dumps({"device": torch.cuda.get_device_name(), "bandwidth": bandwidth,
                      "seconds": time.perf_counter() - begin, "results": results}))  # fmt: skip
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
