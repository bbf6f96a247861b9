"""The competition's side of the solver: `predict`, which always answers, in time.

from eightfold.solver import kaggle
config = kaggle.configure(input_folder)
kaggle.start(config, reading=kaggle.preload(config))   # returns at once, the model loads behind it
kaggle.serve(input_folder)               # the competition's server, or the stand-in
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..solver_config import SolverConfig, SolverError
from .kaggle_session import KaggleConfig, Session, scored

__all__ = ["KaggleConfig", "Session", "configure", "predict", "preload", "serve", "start", "stop"]

_session: Session | None = None
_guard = threading.Lock()


def start(
    config: KaggleConfig | None = None,
    make: Callable[[], Any] | None = None,
    reading: Any = None,
) -> Session:
    """Begins a run: the model loads behind this call. A run under way is ended.

    Args:
        make: makes the solver; None: a `Solver` of the configuration.
        reading: what `preload` returned; the solver takes it over instead of reading anew.
    """
    global _session
    with _guard:
        if _session is not None:
            _session.close()
        _session = Session(config or KaggleConfig(), make, reading)
        return _session


def stop() -> None:
    """Ends the run under way."""
    global _session
    with _guard:
        if _session is not None:
            _session.close()
        _session = None


def predict(id_: Any, problem: Any, answer: Any = None) -> Any:
    """The competition's endpoint: one-row Series in, a one-row frame with an integer answer out.

    Args:
        answer: what a file with known answers passes; not looked at.
    """
    session = _session if _session is not None else start()
    return session.predict(id_, problem)


def configure(root: str | Path, **changes: Any) -> KaggleConfig:
    """Settings for this machine and what lies below the input folder.

    Args:
        changes: fields of `KaggleConfig` that replace the defaults.

    Raises:
        SolverError: no folder, or no model can be used.
    """
    from eightfold.engine import EngineConfig

    from .input_discovery import choose_model, find_inputs
    from .machine_sizing import look_at_machine

    machine = look_at_machine()
    choice = choose_model(machine, find_inputs(root).models)
    for why in choice.passed:
        print(f"passed over: {why}", file=sys.stderr)
    sizes = choice.sizes
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(sizes.threads)  # torch reads it when it is imported,
        if "torch" in sys.modules:  # unless another cell has done that
            sys.modules["torch"].set_num_threads(sizes.threads)
    solver = SolverConfig(
        model=choice.model,
        attempts=sizes.attempts,
        early_stop=sizes.early_stop,
        kernels=sizes.kernels,
        # A seed of its own for each of the two private runs.
        seed=time.time_ns() % 2**31,
        engine=EngineConfig(
            # None: the GPU, or the CPU with a warning where this torch has no code for it.
            device="cpu" if sizes.device == "cpu" else None,
            max_context=sizes.max_context,
            # Pages are not set aside for more sequences than there will be.
            max_running=sizes.attempts,
        ),
    )
    print(
        f"machine: {machine}\nmodel: {choice.model or 'bundled'}\nsizes: {sizes}", file=sys.stderr
    )
    return KaggleConfig(**({"solver": solver} | changes))


def preload(config: KaggleConfig) -> Any:
    """Starts to read the model's files into the page cache; returns at once.

    Returns:
        The `Preload` under way, None for the bundled model.
    """
    if config.solver.model is None:
        return None
    from eightfold.engine.loading.file_preload import Preload

    return Preload(config.solver.model)


def serve(root: str | Path) -> None:
    """Serves `predict`: in a scored run until the gateway is done, else over test.csv once.

    Raises:
        SolverError: no test.csv, or in a scored run no server; outside of one also where every
            problem got the fallback, which must not be taken for a run that works.
    """
    from .input_discovery import find_inputs

    inputs = find_inputs(root)
    if inputs.servers:
        sys.path.insert(0, str(inputs.servers[0]))
    if find_spec("kaggle_evaluation") is not None:
        from kaggle_evaluation.aimo_3_inference_server import (  # type: ignore[import-not-found]
            AIMO3InferenceServer,
        )

        server = AIMO3InferenceServer(predict)
        if scored():
            server.serve()
        else:
            server.run_local_gateway((str(inputs.test_file()),))
    elif scored():
        raise SolverError(
            f"There is no folder kaggle_evaluation below {root}; add the competition's data."
        )
    else:
        from ..problem_set import load_problems
        from .gateway_stand_in import Row, run_gateway

        rows = [Row(p.id, p.text, p.answer) for p in load_problems(inputs.test_file())]
        run_gateway(predict, rows)
    session = _session
    if not scored() and session is not None and session.served == session.fallbacks > 0:
        raise SolverError("Every problem got the fallback; the lines above say why.")
