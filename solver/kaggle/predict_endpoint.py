"""The functions that the notebook calls: `configure`, `preload`, `start`, `serve`, `stop`.

The competition's server takes a plain function named `predict` and passes it nothing but a
problem. So the session that `predict` serves is state of this module:

- `_session`: the run in progress, or None.
- `_session_lock`: held while `_session` is replaced, so that two cells cannot start two runs.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..solver_config import SolverConfig, SolverError
from .kaggle_config import KaggleConfig, is_scored_run
from .kaggle_session import Session, SessionSolver

if TYPE_CHECKING:
    from polars import DataFrame

    from eightfold.engine import Preload

    from .machine_sizing import RunSizes

_session: Session | None = None
_session_lock = threading.Lock()


def configure(root: str | Path, **changes: Any) -> KaggleConfig:
    """Return settings that suit this machine and the models below the input folder.

    Args:
        root: the input folder; see `input_discovery.find_inputs`.
        changes: fields of `KaggleConfig` that replace the defaults.

    Raises:
        SolverError: there is no such folder, or no model can be used.
    """
    from .input_discovery import choose_model, find_inputs
    from .machine_detection import detect_machine

    machine = detect_machine()
    choice = choose_model(machine, find_inputs(root).models)
    for reason in choice.passed:
        print(f"passed over: {reason}", file=sys.stderr)
    sizes = choice.sizes
    _set_threads(sizes.threads)
    solver = _solver_config(choice.model, sizes)
    print(
        f"machine: {machine}\nmodel: {choice.model or 'bundled'}\nsizes: {sizes}", file=sys.stderr
    )
    return KaggleConfig(**({"solver": solver} | changes))


def preload(config: KaggleConfig) -> Preload | None:
    """Start to read the model's files into the OS page cache, and return at once.

    Returns:
        The `Preload` in progress, for `start`; None for the bundled model, which is small.
    """
    if config.solver.model is None:
        return None
    from eightfold.engine import Preload

    from ..model_defaults import resolve_model_folder

    return Preload(resolve_model_folder(config.solver.model))


def start(
    config: KaggleConfig | None = None,
    make: Callable[[], SessionSolver] | None = None,
    reading: Preload | None = None,
) -> Session:
    """Start a run and return at once: the model loads in the background.

    A run in progress is ended.

    Args:
        config: settings of the run; None takes the defaults of `KaggleConfig`.
        make: makes the solver; None makes a `Solver` from the configuration.
        reading: what `preload` returned. The solver takes it over instead of reading once more.
    """
    global _session
    with _session_lock:
        if _session is not None:
            _session.close()
        _session = Session(config or KaggleConfig(), make, reading)
        return _session


def predict(id_: object, problem: object, answer: object = None) -> DataFrame:
    """Answer a problem; the competition's server calls this.

    Args:
        id_: a one-row Series with the problem's id.
        problem: a one-row Series with its text.
        answer: passed if the file of problems holds known answers; ignored.

    Returns:
        A one-row frame with the columns id and answer; the answer is always an integer.
    """
    session = _session if _session is not None else start()
    return session.predict(id_, problem)


def serve(root: str | Path) -> None:
    """Serve `predict`: until the gateway is done in a scored run, else over test.csv once.

    Args:
        root: the input folder, which holds the competition's server and test.csv. Without the
            server, a stand-in passes the problems of test.csv.

    Raises:
        SolverError: there is no test.csv or, in a scored run, no server. Also if every problem of
            a run that is not scored got the fallback, so that it is not mistaken for a working
            submission.
    """
    from ..problem_set import load_problems
    from .input_discovery import find_inputs

    inputs = find_inputs(root)
    if not is_scored_run() and _session is not None:
        with suppress(SolverError):  # reported below, if the file is needed there
            _session.total = len(load_problems(inputs.test_file()))
    if inputs.servers:
        sys.path.insert(0, str(inputs.servers[0]))
    if find_spec("kaggle_evaluation") is not None:
        from kaggle_evaluation.aimo_3_inference_server import (  # type: ignore[import-not-found]
            AIMO3InferenceServer,
        )

        server = AIMO3InferenceServer(predict)
        if is_scored_run():
            server.serve()
        else:
            server.run_local_gateway((str(inputs.test_file()),))
    elif is_scored_run():
        raise SolverError(
            f"There is no folder kaggle_evaluation below {root}; add the competition's data."
        )
    else:
        from .local_gateway import Row, run_gateway

        rows = [Row(p.id, p.text, p.answer) for p in load_problems(inputs.test_file())]
        run_gateway(predict, rows)
    session = _session
    if not is_scored_run() and session is not None and session.served == session.fallbacks > 0:
        raise SolverError("Every problem got the fallback; the lines above say why.")


def stop() -> None:
    """End the run in progress, if there is one."""
    global _session
    with _session_lock:
        if _session is not None:
            _session.close()
        _session = None


def _set_threads(threads: int) -> None:
    """Give torch this many threads, unless OMP_NUM_THREADS is set."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # torch reads it when it is imported,
        if "torch" in sys.modules:  # unless another cell has imported it already
            sys.modules["torch"].set_num_threads(threads)


def _solver_config(model: Path | None, sizes: RunSizes) -> SolverConfig:
    from eightfold.engine import EngineConfig

    return SolverConfig(
        model=model,
        attempts=sizes.attempts,
        early_stop=sizes.early_stop,
        kernels=sizes.kernels,
        devices=None if sizes.device == "cpu" else "auto",
        seed=time.time_ns() % 2**31,  # the competition's two scored runs must differ
        engine=EngineConfig(
            # None takes the GPU, or the CPU with a warning if this torch has no code for the GPU.
            device="cpu" if sizes.device == "cpu" else None,
            max_context=sizes.max_context,
            # KV pages are not reserved for more sequences than there will be.
            max_running=sizes.attempts,
        ),
    )
