"""`eightfold serve`: the model and the solver behind OpenAI's protocol."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.sandbox.platform_support import check_platform

from ...devices.device_list import choose_devices
from ...model_defaults import read_model_inputs
from ...server.link.http_process import HttpProcess, listen
from ...server.loopback import is_loopback
from ...solver_config import MAX_RUNNING, SolverConfig, SolverError
from ..exit_codes import ExitCode
from ..solver_options import add_devices_option, add_solver_options, solver_config

if TYPE_CHECKING:
    from ..argument_parser import Subparsers

KEY_VARIABLE = "EIGHTFOLD_API_KEY"


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "serve",
        help="serve the model over HTTP, in OpenAI's protocol",
        description="Serve /v1/chat/completions, /v1/completions, /v1/models, /health and "
        "/metrics. The model's name with the suffix :voteN stands for the whole solver.",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; others than this machine's own "
        "need --api-key (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--port", type=int, default=8000, help="port; 0 takes a free one (%(default)s)"
    )
    parser.add_argument(
        "--api-key", metavar="KEY",
        help=f"key that clients must send; default: the variable {KEY_VARIABLE}, if it is set",
    )  # fmt: skip
    parser.add_argument(
        "--name", help="the model's name in requests; default: the last part of --model"
    )
    parser.add_argument(
        "--running", type=int, default=64, metavar="N",
        help="requests that are computed at the same time; others wait in order (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--parallel", type=int, default=1, metavar="K",
        help="problems that the voting model solves at the same time (%(default)s)",
    )  # fmt: skip
    add_solver_options(parser)
    add_devices_option(parser, default="auto")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until the process is told to end."""
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if not find_spec(name)]
    if missing:
        raise SolverError(f"The server needs {missing[0]}; install eightfold[serve].")
    check_options(options)
    key = options.api_key or os.environ.get(KEY_VARIABLE) or None
    if key is None and not is_loopback(options.host):
        raise SolverError(
            f"--host {options.host} can be reached from outside; "
            "give --api-key, or leave --host out."
        )
    config = serve_config(options)
    check_platform()
    inputs = read_model_inputs(config)
    engines = len(choose_devices(config)) or 1
    listening = listen(options.host, options.port)
    host, port = listening.getsockname()[:2]
    http = HttpProcess(listening, engines)
    try:
        from ...solver import Solver

        name = options.name or model_name(config)
        print("loading the model and starting the Python kernels", file=sys.stderr, flush=True)
        with Solver(config, inputs=inputs) as solver:
            print(solver.table(), file=sys.stderr)
            level = "info" if options.verbose else "warning"
            http.serve(solver, name, key=key, parallel=options.parallel, log_level=level)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: http.end())
            where = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
            voted = f"{name}:vote{config.attempts}"
            print(f"serving {name} and {voted} at {where}", file=sys.stderr, flush=True)
            http.wait()
            print("ending", file=sys.stderr, flush=True)
            http.close()
    finally:
        http.close()
    return ExitCode.OK


def check_options(options: argparse.Namespace) -> None:
    """Check the command's own options.

    Raises:
        SolverError: a value is out of range.
    """
    if not 0 <= options.port < 2**16:
        raise SolverError(f"--port must be from 0 to 65535, not {options.port}.")
    if not 1 <= options.running <= MAX_RUNNING:
        raise SolverError(f"--running must be from 1 to {MAX_RUNNING}, not {options.running}.")
    if options.parallel < 1:
        raise SolverError(f"--parallel must be at least 1, not {options.parallel}.")
    if options.api_key is not None and not options.api_key.strip():
        raise SolverError("--api-key is empty; give a key, or leave the option out.")


def serve_config(options: argparse.Namespace) -> SolverConfig:
    """Return the solver's configuration, with an engine for many requests at once."""
    from eightfold.engine import EngineConfig

    config = solver_config(options, problems=options.parallel)
    running = max(config.running, options.running)
    engine = config.engine or EngineConfig(max_running=running)
    return replace(config, engine=replace(engine, max_running=running))


def model_name(config: SolverConfig) -> str:
    """Return the name of a model in requests: the last part of its id or folder."""
    if config.model is None:
        return "eightfold"
    return Path(str(config.model).partition("@")[0]).resolve().name or "model"
