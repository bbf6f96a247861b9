"""The number of threads with which PyTorch runs a model on the CPU."""

from __future__ import annotations

import os
from pathlib import Path

SMALL_MODEL_BYTES = 256 << 20
"""Size of the weights below which one thread runs a model fastest."""


def limit_threads(folder: Path) -> None:
    """Run a small model on one thread, unless OMP_NUM_THREADS is set.

    Its layers are too short to be divided: on two cores a second thread made a step slower, and the
    Python kernels need that core (docs/notebook/log.md).
    """
    import torch

    from eightfold.engine.loading.safetensors_headers import weight_bytes

    if weight_bytes(folder) < SMALL_MODEL_BYTES and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
