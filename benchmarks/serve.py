"""Compare the speed over HTTP with that of the bare engine in the same process.

    python benchmarks/serve.py [--model MODEL] [--device cpu] [--soak 10000]
    python benchmarks/serve.py --shapes gemma-4-31b-shapes    # random weights, on a GPU

Rounds alternate between the engine alone, 8 sequences that are submitted together, and the server,
the same 8 requests by 8 clients, whose answers are streamed. Engine, HTTP and clients are three
processes; what each takes of the processor is counted, because they share the cores of a CPU. Both
sample the same tokens. The overhead is that of the medians. Then a short request is timed to its
first text while 7 others decode, beside the seconds of one step of the engine. --soak sends many
more requests in several ways, and compares the memory and the pages before and after. On a CPU,
take a small --max-context for it: the KV cache counts as memory only once it has been written to.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from support.model_shapes import SHAPES
from support.serving.http_clients import PROMPT

from eightfold.common.terminal_table import Column, format_table
from eightfold.engine import EngineConfig
from eightfold.solver import Solver, SolverConfig, SolverError

CLIENTS = 8
TICKS = os.sysconf("SC_CLK_TCK")
CLIENT_FILE = Path(__file__).parent / "support" / "serving" / "http_clients.py"


@dataclass(frozen=True)
class Served:
    """A server that runs.

    Attributes:
        url: its address.
        pid: number of the HTTP process.
    """

    url: str
    pid: int

    def processor_seconds(self) -> float:
        """Return the seconds of the processor that the HTTP process has taken."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def served(solver: Solver) -> Iterator[Served]:
    """Serve the solver as `eightfold serve` does."""
    from eightfold.solver.server.link.http_process import HttpProcess, listen

    listening = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    http = HttpProcess(listening)
    try:
        http.serve(solver, "m")
        yield Served(url, http.pid)
    finally:
        http.close()


def run_clients(url: str, clients: int, requests: int, tokens: int) -> dict[str, Any]:
    """Return what the clients' process measured."""
    numbers = map(str, (clients, requests, tokens))
    command = [sys.executable, str(CLIENT_FILE), url, "m", *numbers]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: dict[str, Any] = json.loads(output)
    return figures


def run_bare(solver: Solver, prompt: list[int], tokens: int) -> tuple[int, float]:
    """Return the tokens and the seconds of the same sequences without a server."""
    loop, done, counted = solver.loop, threading.Event(), [0, 0]
    params = replace(
        solver.sampling,
        max_new_tokens=tokens,
        pause_token_ids=(),
        stop_token_ids=(),
        entropy=False,
    )

    def on_event(event: Any) -> None:
        counted[0] += len(event.tokens)
        counted[1] += event.status == "finished"
        if counted[1] == CLIENTS:
            done.set()

    def submit() -> None:
        for seed in range(CLIENTS):
            loop.subscribe(loop.engine.submit(prompt, replace(params, seed=seed)), on_event)

    began = time.perf_counter()
    loop.call(submit)
    done.wait()
    return counted[0], time.perf_counter() - began


def measure_overhead(
    solver: Solver, server: Served, prompt: list[int], tokens: int, rounds: int
) -> dict[str, float]:
    """Return tokens per second of both, the server's overhead, and what takes processor time."""
    run_bare(solver, prompt, tokens)
    run_clients(server.url, CLIENTS, CLIENTS, tokens)
    bare, over_http, count = [], [], 0
    http, clients, engine_bare, engine_http = 0.0, 0.0, 0.0, 0.0
    for _ in range(rounds):
        before = time.process_time()
        count, seconds = run_bare(solver, prompt, tokens)
        bare.append(count / seconds)
        engine_bare += time.process_time() - before
        before, http_before = time.process_time(), server.processor_seconds()
        figures = run_clients(server.url, CLIENTS, CLIENTS, tokens)
        if figures["tokens"] != count:
            raise SolverError(f"The server sampled {figures['tokens']} tokens, not {count}.")
        over_http.append(figures["tokens"] / figures["seconds"])
        engine_http += time.process_time() - before
        http += server.processor_seconds() - http_before
        clients += figures["processor"]
    engine, through = statistics.median(bare), statistics.median(over_http)
    each = 1e6 / (rounds * count)
    return {
        "engine_tokens_per_second": engine,
        "server_tokens_per_second": through,
        "overhead_percent": 100 * (1 - through / engine),
        "spread_percent": 100 * (max(bare) - min(bare)) / engine,
        "engine_processor_us_per_token": each * engine_bare,
        "engine_processor_us_per_token_serving": each * engine_http,
        "http_processor_us_per_token": each * http,
        "clients_processor_us_per_token": each * clients,
    }


def measure_first_token(solver: Solver, url: str, tokens: int) -> dict[str, float]:
    """Return the milliseconds to the first text of a short request while 7 others decode."""
    stop = threading.Event()

    def keep_decoding() -> None:
        while not stop.is_set():
            run_clients(url, CLIENTS - 1, CLIENTS - 1, 8 * tokens)

    busy = threading.Thread(target=keep_decoding, daemon=True)
    busy.start()
    time.sleep(2.0)
    steps, began = solver.loop.engine.stats()["steps"], time.perf_counter()
    first = run_clients(url, 1, 20, 1)["first"]
    passed = time.perf_counter() - began
    steps = solver.loop.engine.stats()["steps"] - steps
    stop.set()
    busy.join()
    return {
        "first_token_ms": 1e3 * statistics.median(first),
        "first_token_worst_ms": 1e3 * max(first),
        "step_ms": 1e3 * passed / max(1, steps),
    }


def soak(solver: Solver, server: Served, requests: int) -> dict[str, float]:
    """Send many requests; return the growth of both processes' memory, and the pages lost.

    Half of them are streamed by plain clients, the others are sent by the official one; of those,
    every eighth client leaves its stream.
    """
    import openai

    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)

    def send(count: int) -> None:
        run_clients(server.url, CLIENTS, count // 2, 2)
        for seed in range(count - count // 2):
            leaves = seed % 8 == 0
            answer = client.completions.create(
                model="m", prompt="1 2 3", max_tokens=64 if leaves else 1, seed=seed, stream=leaves
            )
            if leaves:
                answer.close()

    def memory() -> dict[str, float]:
        time.sleep(1.0)
        free = sum(solver.loop.engine.stats()["pages_available"])
        return {"engine_mb": memory_mb(os.getpid()), "http_mb": memory_mb(server.pid), "free": free}

    send(requests // 10)  # fills caches
    before = memory()
    send(requests // 2)
    middle = memory()
    send(requests - requests // 2)
    after = memory()
    return {
        "soak_requests": requests,
        **{f"{name}_before": before[name] for name in ("engine_mb", "http_mb")},
        **{f"{name}_halfway": middle[name] for name in ("engine_mb", "http_mb")},
        **{f"{name}_after": after[name] for name in ("engine_mb", "http_mb")},
        "pages_lost": before["free"] - after["free"],
    }


def memory_mb(pid: int) -> float:
    """Return the memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def make_solver(options: argparse.Namespace) -> Solver:
    """Return the solver that is served."""
    engine = EngineConfig(device=options.device, max_running=64, max_context=options.max_context)
    config = SolverConfig(model=options.model, kernels=1, engine=engine)
    if options.shapes is None:
        return Solver(config)
    import torch
    from support.random_model import random_model
    from support.serving.wide_tokenizer import wide_tokenizer

    from eightfold.engine import Engine

    if options.model is not None or not torch.cuda.is_available():
        raise SolverError("--shapes needs a GPU, and stands instead of --model.")
    model = random_model(options.shapes, torch.device("cuda"))
    tokenizer = wide_tokenizer(model.config.vocab_size)
    return Solver(config, engine=Engine(model, engine), tokenizer=tokenizer)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="model folder or id; default: the bundled model")
    parser.add_argument(
        "--shapes", choices=sorted(SHAPES), help="a model of these shapes, with random weights"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--tokens", type=int, default=128, help="tokens of an answer (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (%(default)s)")
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="also send N requests")
    parser.add_argument("--max-context", type=int, help="tokens of a sequence")
    options = parser.parse_args()
    try:
        with make_solver(options) as solver, served(solver) as server:
            prompt = solver.protocol.tokenizer.encode(PROMPT)
            figures = measure_overhead(solver, server, prompt, options.tokens, options.rounds)
            figures |= measure_first_token(solver, server.url, options.tokens)
            if options.soak:
                figures |= soak(solver, server, options.soak)
    except SolverError as error:
        print(f"benchmarks/serve.py: {error}", file=sys.stderr)
        return 2
    rows = [(name.replace("_", " "), f"{value:.4g}") for name, value in figures.items()]
    print(format_table((Column("figure"), Column("value", right=True)), rows))
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
