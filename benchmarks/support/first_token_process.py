"""A fresh process up to its first token, in phases; `benchmarks/coldstart.py` runs it.

    python benchmarks/support/first_token_process.py FOLDER [DEVICE] [BEGAN]

BEGAN: `time.time()` at which the process was started. Prints a line of JSON at the end of each
phase: seconds since then of all phases so far. The page cache is filled from the first moment on.
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

    def reached(phase: str) -> None:
        phases[phase] = round(time.time() - start, 2)
        print(json.dumps(phases), flush=True)

    reached("python")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the solver does
    from eightfold.engine.loading.file_preload import Preload

    preload = Preload(folder)  # the disk works while libraries are imported
    import torch  # noqa: F401

    reached("torch")
    from eightfold.engine import Engine, EngineConfig, SamplingParams
    from eightfold.engine import engine as module

    reached("engine imported")
    real = module.load_weights

    def load(*rest: Any, **options: Any) -> Any:
        reached("load begins")
        model = real(*rest, **options)
        reached("weights loaded")
        return model

    module.load_weights = load
    engine = Engine(folder, EngineConfig(device=device, max_context=4096))
    preload.stop()
    reached("engine ready")
    engine.submit(list(range(3, 203)), SamplingParams(max_new_tokens=1, stop_token_ids=()))
    while engine.has_work():
        engine.step()
    reached("first token")


if __name__ == "__main__":
    main(*sys.argv[1:])
