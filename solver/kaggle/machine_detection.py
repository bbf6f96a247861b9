"""Detect the GPU, the CPUs and the memory of the machine, without importing torch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from eightfold.common.host_memory import total_memory
from eightfold.kernels.supported_gpus import is_supported, unsupported_reason

TORCH_TRIAL = "import torch; torch.ones(1, device='cuda').add_(1).item()"
TORCH_TRIAL_SECONDS = 300  # torch may have to be read from a cold disk
NVIDIA_SMI_SECONDS = 20


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        gpu: bytes of memory of the GPU to use, 0 without a GPU.
        cpus: number of CPUs that this process may use.
        ram: bytes of host memory that this process may use.
        capability: compute capability of the GPU.
    """

    gpu: int
    cpus: int
    ram: int
    capability: float = 9.0


def detect_machine() -> Machine:
    """Return the resources of this machine; nvidia-smi reports the GPUs."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:
        cpus = os.cpu_count() or 1
    memory, capability = detect_gpu()
    return Machine(memory, cpus, total_memory(), capability)


def detect_gpu() -> tuple[int, float]:
    """Return the memory in bytes and the compute capability of the GPU to use, zeros without one.

    A GPU that does not run our kernels is used through plain PyTorch. Whether a build of PyTorch
    has code for a GPU is only known once it runs, so a process of its own tries: torch must not be
    imported here yet. The outcome is printed to standard error.
    """
    memory, capability = _listed_gpu()
    if not memory or is_supported(capability):
        return memory, capability
    if torch_runs():
        reason = unsupported_reason(capability)
        print(f"the GPU is used through plain PyTorch: {reason}", file=sys.stderr)
        return memory, capability
    print(
        f"passed over: a GPU of compute capability {capability:g}, which this PyTorch does not "
        "support",
        file=sys.stderr,
    )
    return 0, 0.0


def torch_runs() -> bool:
    """Return True if this PyTorch computes on the GPU."""
    command = (sys.executable, "-c", TORCH_TRIAL)
    try:
        ran = subprocess.run(command, capture_output=True, timeout=TORCH_TRIAL_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return False
    return ran.returncode == 0


def _listed_gpu() -> tuple[int, float]:
    """Return memory and compute capability of the best GPU that nvidia-smi lists."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return 0, 0.0
    query = "--query-gpu=memory.total,compute_cap"
    command = ("nvidia-smi", query, "--format=csv,noheader,nounits")
    try:
        shown = subprocess.run(
            command, capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=True
        )
        return best_gpu(shown.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0, 0.0


def best_gpu(listing: str) -> tuple[int, float]:
    """Return memory and compute capability of the largest GPU that runs our kernels.

    If none does, it is the largest GPU. A GPU of unknown size ("[N/A]") is passed over, which is
    reported on standard error.

    Args:
        listing: lines of nvidia-smi with the memory in MiB and the compute capability.
    """
    found = []
    for line in filter(str.strip, listing.splitlines()):
        try:
            memory, capability = line.split(",")
            found.append((is_supported(float(capability)), int(memory) << 20, float(capability)))
        except ValueError:
            print(f"passed over: a GPU that nvidia-smi lists as {line!r:.80}", file=sys.stderr)
    return max(found)[1:] if found else (0, 0.0)
