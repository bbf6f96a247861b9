"""Loads a model and samples one token in a fresh process; `benchmarks/coldstart.py` runs it.

    python benchmarks/support/loading/first_token_process.py FOLDER [DEVICE] [BEGAN]

BEGAN is the `time.time()` at which the process was started. At the end of each phase, a line of
JSON gives the seconds since then of all phases so far. The OS page cache is filled from the first
moment on.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main(folder: str, device: str | None = None, began: str | None = None) -> None:
    start = float(began) if began else time.time()
    phases: dict[str, float] = {}

    def end_phase(phase: str) -> None:
        phases[phase] = round(time.time() - start, 2)
        print(json.dumps(phases), flush=True)

    end_phase("python")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the solver does
    from eightfold.engine import Preload

    preload = Preload(folder)  # the disk is busy while libraries are imported
    import torch  # noqa: F401

    end_phase("torch")
    from eightfold.engine import Engine, EngineConfig, SamplingParams
    from eightfold.engine.startup import model_load

    end_phase("engine imported")
    load_weights = model_load.load_weights

    def load_and_report(*arguments: Any, **options: Any) -> Any:
        end_phase("load begins")
        model = load_weights(*arguments, **options)
        end_phase("weights loaded")
        return model

    model_load.load_weights = load_and_report
    engine = Engine(folder, EngineConfig(device=device, max_context=4096))
    preload.stop()
    end_phase("engine ready")
    engine.submit(list(range(3, 203)), SamplingParams(max_new_tokens=1, stop_token_ids=()))
    while engine.has_work():
        engine.step()
    end_phase("first token")


if __name__ == "__main__":
    main(*sys.argv[1:])
