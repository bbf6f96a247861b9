"""What the machine has, and the settings that follow from it and from a checkpoint's size."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eightfold.common.host_memory import total_memory
from eightfold.engine.inspection.kv_geometry import (
    bytes_per_token,
    one_copy_layers,
    read_layers,
    window_bytes_per_sequence,
)
from eightfold.engine.loading.model_folder import read_json
from eightfold.kernels.supported_gpus import (
    BFLOAT16_MIN_CAPABILITY,
    is_supported,
    unsupported_reason,
)

from ..solver_config import SolverError
from ..solver_startup import SMALL_MODEL_BYTES

GB = 10**9
OVERHEAD = 2 * GB  # of a GPU: CUDA context, step graphs, activations
TOKENS_EACH = 8192  # an attempt is worth its place where the pools hold so many tokens for it
CONTEXT = 65_536
BFLOAT16_BYTES = 2
KERNEL_BYTES = GB // 2  # host memory to expect of one Python kernel
"""Of a container, under control groups of version 2 and 1."""
TRIAL = "import torch; torch.ones(1, device='cuda').add_(1).item()"
TRIAL_SECONDS = 300  # torch may come from a cold disk


@dataclass(frozen=True)
class Machine:
    """Sizes in bytes; `gpu` is the memory of the GPU to take, 0 without one; `capability` its
    compute capability."""

    gpu: int
    cpus: int
    ram: int
    capability: float = 9.0


@dataclass(frozen=True)
class Weights:
    """A checkpoint's size in bytes, and what its KV takes in bfloat16.

    Attributes:
        token: KV bytes a token takes in the layers with full attention.
        both: the same without our kernels, which keep one copy of keys and values where they are
            equal.
        sequence: KV bytes a sequence takes in the sliding-window layers, window full.
        context: positions the checkpoint was made for.
    """

    size: int
    token: int
    sequence: int
    context: int
    both: int = 0


@dataclass(frozen=True)
class Sizes:
    """Settings for a machine; `max_context` None leaves it to the engine."""

    device: str
    attempts: int
    kernels: int
    early_stop: int
    max_context: int | None
    threads: int


def look_at_machine() -> Machine:
    """This machine, without importing torch: nvidia-smi tells of GPUs."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:
        cpus = os.cpu_count() or 1
    memory, capability = gpu()
    return Machine(memory, cpus, total_memory(), capability)


def gpu() -> tuple[int, float]:
    """Bytes and compute capability of the GPU to take, zeros where there is none.

    One that the kernels do not run on serves by plain PyTorch. Of which GPUs a build of PyTorch has
    code for is not told before it is run: a process of its own tries, since torch must not be
    imported here yet. What comes of it is said on standard error.
    """
    memory, capability = _listed()
    if not memory or is_supported(capability):
        return memory, capability
    if torch_runs():
        print(f"plain PyTorch serves on the GPU: {unsupported_reason(capability)}", file=sys.stderr)
        return memory, capability
    print(
        f"passed over: a GPU of compute capability {capability:g}, on which this PyTorch does not "
        "compute",
        file=sys.stderr,
    )
    return 0, 0.0


def torch_runs() -> bool:
    """Whether this PyTorch computes on the GPU."""
    command = (sys.executable, "-c", TRIAL)
    try:
        return not subprocess.run(command, capture_output=True, timeout=TRIAL_SECONDS).returncode
    except (OSError, subprocess.SubprocessError):
        return False


def _listed() -> tuple[int, float]:
    """The best GPU that nvidia-smi tells of."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return 0, 0.0
    query = "--query-gpu=memory.total,compute_cap"
    command = ("nvidia-smi", query, "--format=csv,noheader,nounits")
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return best_gpu(shown.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0, 0.0


def best_gpu(listing: str) -> tuple[int, float]:
    """The largest GPU in nvidia-smi's lines of MiB and compute capability that runs our kernels.

    Where none does, the largest. One of which a size is not told ("[N/A]") is passed over, which is
    said on standard error.
    """
    found = []
    for line in filter(str.strip, listing.splitlines()):
        try:
            memory, capability = line.split(",")
            found.append((is_supported(float(capability)), int(memory) << 20, float(capability)))
        except ValueError:
            print(f"passed over: a GPU that nvidia-smi tells of as {line!r:.80}", file=sys.stderr)
    return max(found)[1:] if found else (0, 0.0)


def read_weights(folder: Path) -> Weights:
    """Sizes of a checkpoint from its config.json and the lengths of its files.

    Raises:
        UnsupportedModelError: the engine cannot page its layers.
    """
    config: dict[str, Any] = read_json(folder / "config.json")
    config = config.get("text_config") or config
    layers = read_layers(config)
    kept = one_copy_layers(config, layers) or layers
    return Weights(
        size=sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        token=bytes_per_token(kept, None, BFLOAT16_BYTES),
        both=bytes_per_token(layers, None, BFLOAT16_BYTES),
        sequence=window_bytes_per_sequence(layers, BFLOAT16_BYTES),
        context=int(config.get("max_position_embeddings") or CONTEXT),
    )


def sizes_for(machine: Machine, weights: Weights) -> Sizes:
    """Attempts, kernels, context and threads; a function of its arguments alone.

    Raises:
        SolverError: the weights do not fit.
    """
    kernels_held = max(1, min(16, machine.ram // 4 // KERNEL_BYTES))
    context = min(CONTEXT, weights.context)
    if machine.gpu:
        # What lacks units for bfloat16 computes in float32.
        wide = 1 if machine.capability >= BFLOAT16_MIN_CAPABILITY else 2
        token = wide * (weights.token if is_supported(machine.capability) else weights.both)
        sequence = wide * weights.sequence
        room = int(machine.gpu * 0.95) - OVERHEAD - wide * weights.size
        least = sequence + TOKENS_EACH * token
        if room < least:
            what = "GPU" if wide == 1 else "GPU that computes in float32"
            raise SolverError(_too_large(weights, machine.gpu, what))
        attempts = max(1, min(8, room // max(least, 1)))
        held = (room - attempts * sequence) // max(token, 1)
        device, threads = "cuda", max(1, min(8, machine.cpus // 2))
        context = max(2048, min(context, int(held)))
    else:
        # float32 on a CPU: checkpoints are kept at half that.
        if 2 * weights.size > machine.ram // 2:
            raise SolverError(_too_large(weights, machine.ram, "computer without a GPU"))
        attempts = 8
        # Layers of a small model are too short to be shared (see `Solver`).
        device, threads = "cpu", 1 if weights.size < SMALL_MODEL_BYTES else min(16, machine.cpus)
    kernels = min(kernels_held, 2 * attempts)
    early = max(1, (attempts + 1) // 2)
    own = context if machine.gpu else None
    return Sizes(device, attempts, kernels, early, own, threads)


def _too_large(weights: Weights, memory: int, what: str) -> str:
    return (
        f"The model's weights of {weights.size / GB:.1f} GB do not fit a {what} with "
        f"{memory / GB:.1f} GB; take a smaller model."
    )
