"""Code that `notebook.py` runs between the notebook's cells."""

PRINT_SESSION = """
print("eightfold is that of", kaggle.__file__)
_engine = session.solver.loop.engine if session.solver else None
if _engine is not None:
    print("engine:", _engine.device, _engine.config, _engine.stats())
print("session:", session.served, "served", session.fallbacks, "fallbacks", session.rebuilds, "new")
"""
"""Prints where the package is and what the session did."""

PLAIN_PYTORCH = """
import eightfold.kernels.supported_gpus as _supported
_supported.MIN_CAPABILITY = 99.0
"""
"""Makes the GPU count as one that the kernels do not support."""

FLOAT32 = PLAIN_PYTORCH + "_supported.BFLOAT16_MIN_CAPABILITY = 99.0\n"
"""Makes the GPU also count as one without units for bfloat16."""

OUT_OF_MEMORY = """
import os, pathlib
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")  # must be set before torch loads
import torch, eightfold.engine.startup.model_load as _module
def _out_of_memory(name, _real=_module.select_device):
    if pathlib.Path("full").exists():
        raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
    return _real(name)
_module.select_device = _out_of_memory
"""
"""Makes the engine fail without a GPU as it does without GPU memory, while a file "full" exists."""

SHORT_PROBLEMS = """
from eightfold.solver import kaggle as _kaggle
from eightfold.solver.time_budget import BudgetConfig as _Budget
def _configure(root, _real=_kaggle.configure, **changes):
    return _real(root, budget=_Budget(floor=25, cap=25), **changes)
_kaggle.configure = _configure
"""
"""Gives each problem 25 s, because no answer of a model with random weights ends."""
