"""A fresh process up to its first token, in phases; `benchmarks/coldstart.py` runs it.

    python benchmarks/firsttoken.py FOLDER [DEVICE] [BEGAN]

BEGAN: `time.time()` at which the process was started. Ends with one line of JSON: seconds since
then at the end of each phase. The page cache is filled from the first moment on.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main(folder: str, device: str | None = None, began: str | None = None) -> None:
    start = float(began) if began else time.time()
    phases = {"python": time.time() - start}
    from eightfold.engine.preload import Preload

    preload = Preload(folder)  # the disk works while libraries are imported
    import torch  # noqa: F401

    phases["torch"] = time.time() - start
    from eightfold.engine import Engine, EngineConfig, SamplingParams
    from eightfold.engine import engine as module

    phases["engine imported"] = time.time() - start
    real = module.load_weights

    def load(*rest: Any, **options: Any) -> Any:
        phases["load begins"] = time.time() - start
        model = real(*rest, **options)
        phases["weights loaded"] = time.time() - start
        return model

    module.load_weights = load
    engine = Engine(folder, EngineConfig(device=device, max_context=4096))
    preload.stop()
    phases["engine ready"] = time.time() - start
    engine.submit(list(range(3, 203)), SamplingParams(max_new_tokens=1, stop_token_ids=()))
    while engine.has_work():
        engine.step()
    phases["first token"] = time.time() - start
    print(json.dumps({key: round(value, 2) for key, value in phases.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
