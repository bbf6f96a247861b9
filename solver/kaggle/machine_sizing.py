"""Attempts, kernels, context and threads that suit a machine and the size of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eightfold.engine.inspection.kv_geometry import (
    bytes_per_token,
    one_copy_layers,
    read_layers,
    steady_positions,
    window_bytes_per_sequence,
)
from eightfold.engine.loading.model_folder import read_json
from eightfold.engine.loading.safetensors_headers import read_stored_tensors, weight_bytes
from eightfold.engine.quantization.quantization_config import read_quantization
from eightfold.kernels.supported_gpus import BFLOAT16_MIN_CAPABILITY, is_supported

from ..devices.thread_count import SMALL_MODEL_BYTES
from ..solver_config import SolverConfig, SolverError
from .machine_detection import Machine

GB = 10**9
BFLOAT16_BYTES = 2
FLOAT_TYPES = ("F16", "BF16", "F32", "F64")
"""safetensors' names of the types that are converted to the one that the model computes in."""

GPU_SHARE = 0.95
"""Share of the GPU's memory that is used."""

GPU_OVERHEAD = 2 * GB
"""GPU memory for the CUDA context, the step graphs and the activations."""

MIN_TOKENS = 8192
"""An attempt is worthwhile if the KV cache holds this many tokens of it."""

MAX_CONTEXT = 65_536
"""Tokens of one attempt; more are not needed."""

ATTEMPTS = SolverConfig.attempts
KERNELS = SolverConfig.kernels
"""The solver's defaults, which are reduced if memory is short."""

PYTHON_KERNEL_BYTES = GB // 2
"""Host memory that one Python kernel may need."""


@dataclass(frozen=True)
class CheckpointSize:
    """Sizes of a checkpoint, and of its KV cache in bfloat16.

    Attributes:
        weight_bytes: bytes of the weights.
        kv_bytes_per_token: bytes of a token in the layers with full attention.
        window_bytes_per_sequence: bytes of a sequence in the sliding-window layers, if its window
            is full.
        max_positions: number of positions that the checkpoint was made for.
        kv_bytes_per_token_two_copies: as `kv_bytes_per_token`, but without our kernels, which keep
            one copy if a layer's keys and values are equal.
        quantized_bytes: bytes of `weight_bytes` that stay as they are stored, whatever type the
            model computes in.
    """

    weight_bytes: int
    kv_bytes_per_token: int
    window_bytes_per_sequence: int
    max_positions: int
    kv_bytes_per_token_two_copies: int = 0
    quantized_bytes: int = 0

    def loaded_bytes(self, factor: int) -> int:
        """Return the bytes of the loaded weights.

        Args:
            factor: bytes of an element of what is not quantized, divided by those of the file.
        """
        return self.quantized_bytes + factor * (self.weight_bytes - self.quantized_bytes)


@dataclass(frozen=True)
class RunSizes:
    """Settings for a machine and a checkpoint.

    Attributes:
        device: "cuda" or "cpu".
        attempts: attempts at a problem.
        kernels: Python kernels.
        early_stop: number of equal answers that end a problem.
        max_context: tokens of an attempt; None leaves it to the engine.
        threads: threads of torch.
    """

    device: str
    attempts: int
    kernels: int
    early_stop: int
    max_context: int | None
    threads: int


def read_checkpoint_size(folder: Path) -> CheckpointSize:
    """Return the sizes of a checkpoint, from its config.json and its files of weights.

    Only the files that the loader reads count, none in folders below. Of a quantized checkpoint
    their headers are read.

    Raises:
        UnsupportedModelError: the engine cannot page its layers, or does not run its quantization.
        CheckpointError: the headers of a quantized checkpoint are broken.
    """
    config: dict[str, Any] = read_json(folder / "config.json")
    quantized = 0
    if read_quantization(config) is not None:
        stored = read_stored_tensors(folder)
        quantized = sum(each.nbytes for each in stored if each.dtype not in FLOAT_TYPES)
    config = config.get("text_config") or config
    layers = read_layers(config)
    kept = one_copy_layers(config, layers) or layers
    positions = int(config.get("max_position_embeddings") or MAX_CONTEXT)
    rotary = config.get("rope_parameters") or config.get("rope_scaling")
    return CheckpointSize(
        weight_bytes=weight_bytes(folder),
        kv_bytes_per_token=bytes_per_token(kept, None, BFLOAT16_BYTES),
        kv_bytes_per_token_two_copies=bytes_per_token(layers, None, BFLOAT16_BYTES),
        window_bytes_per_sequence=window_bytes_per_sequence(layers, BFLOAT16_BYTES),
        max_positions=steady_positions(config, rotary, positions),
        quantized_bytes=quantized,
    )


def choose_sizes(machine: Machine, checkpoint: CheckpointSize) -> RunSizes:
    """Return the settings that suit a machine and a checkpoint.

    Raises:
        SolverError: the weights do not fit.
    """
    if machine.gpu:
        attempts, context = _fit_gpu(machine, checkpoint)
        device, threads = "cuda", max(1, min(8, machine.cpus // 2))
        max_context = max(2048, min(MAX_CONTEXT, checkpoint.max_positions, context))
    else:
        # The CPU computes in float32, for which weights that are not quantized take twice the size.
        if checkpoint.loaded_bytes(2) > machine.ram // 2:
            raise _too_large(checkpoint, machine.ram, "computer without a GPU")
        attempts, max_context = ATTEMPTS, None
        # The layers of a small model are too short to be shared by threads (see `Solver`).
        small = checkpoint.weight_bytes < SMALL_MODEL_BYTES
        device, threads = "cpu", 1 if small else min(16, machine.cpus)
    kernels = max(1, min(KERNELS, machine.ram // 4 // PYTHON_KERNEL_BYTES))
    return RunSizes(
        device,
        attempts,
        kernels=min(kernels, 2 * attempts),
        early_stop=max(1, (attempts + 1) // 2),
        max_context=max_context,
        threads=threads,
    )


def _fit_gpu(machine: Machine, checkpoint: CheckpointSize) -> tuple[int, int]:
    """Return how many attempts fit the GPU, and how many tokens of full attention they share.

    Raises:
        SolverError: the weights do not fit, or no attempt fits beside them.
    """
    # A GPU without bfloat16 units computes in float32, with twice the bytes.
    factor = 1 if machine.capability >= BFLOAT16_MIN_CAPABILITY else 2
    one_copy = is_supported(machine.capability)
    token = factor * (
        checkpoint.kv_bytes_per_token if one_copy else checkpoint.kv_bytes_per_token_two_copies
    )
    sequence = factor * checkpoint.window_bytes_per_sequence
    room = int(machine.gpu * GPU_SHARE) - GPU_OVERHEAD - checkpoint.loaded_bytes(factor)
    needed = sequence + MIN_TOKENS * token
    if room < needed:
        kind = "GPU" if factor == 1 else "GPU that computes in float32"
        raise _too_large(checkpoint, machine.gpu, kind)
    attempts = max(1, min(ATTEMPTS, room // max(needed, 1)))
    return attempts, (room - attempts * sequence) // max(token, 1)


def _too_large(checkpoint: CheckpointSize, memory: int, kind: str) -> SolverError:
    smaller = "" if checkpoint.quantized_bytes else ", or the same in FP8 or 4 bits"
    return SolverError(
        f"The model's weights of {checkpoint.weight_bytes / GB:.1f} GB do not fit a {kind} with "
        f"{memory / GB:.1f} GB; take a smaller model{smaller}."
    )
