"""The tail of a decoder layer in one launch: from its attention to the next layer's first linear.

The kernel (``layer_tail.cu``) runs on Hopper, in bfloat16, for up to 64 rows. Elsewhere
``linear_few_rows`` and ``add_rms_norm`` do the same in six launches.

The kernel's programs wait for one another, one on each multiprocessor. Never run two of these
launches at the same time on a GPU, from two streams or from two processes under MPS: neither might
end.
"""

import ctypes
from dataclasses import dataclass

import torch

from ..cuda.cuda_driver import CudaKernel, TensorMap, tensor_map
from ..cuda.nvrtc import is_hopper, load_kernel
from ..triton_launch import multiprocessor_count, require
from .linear_few_rows import MAX_ROWS, linear_few_rows_reference
from .rms_norm import add_rms_norm_reference

MAX_TILE_ROWS = 64  # weight rows
COLUMNS = 64  # of a block, which a copy places beside the block before it
MAX_DEPTH = 4  # blocks in a slot of the ring
SHARED_BYTES, THREADS = 232448, 224
MAX_WIDTH = 8192  # 128 threads hold a row in registers to compute its norms
COUNTERS = 8  # int32 counters for a launch, zero when it starts
BFLOAT16, GATED, FLOAT32 = range(3)  # OutputKind in layer_tail.cu


@dataclass(frozen=True, slots=True)
class LayerTailWeights:
    """Weights from the end of a layer's attention on, in bfloat16; linear layers are [out, in].

    Attributes:
        output: output projection of attention, [width, attended].
        gate_up: gate and up projections, [2 * inner, width], gate rows first.
        down: down projection, [width, inner].
        following: the next layer's first linear layer, or the language model's head, [n, width].
            ``None`` ends the tail with the norm before it.
        post_attention: weight of the norm after attention, [width].
        pre_feedforward: weight of the norm before the feed-forward block, [width].
        post_feedforward: weight of the norm after it, [width].
        next_norm: weight of the norm before ``following``, [width].
        scale: factor of the residual at the end of the layer.
    """

    output: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    following: torch.Tensor | None
    post_attention: torch.Tensor
    pre_feedforward: torch.Tensor
    post_feedforward: torch.Tensor
    next_norm: torch.Tensor
    scale: float

    @property
    def linears(self) -> list[torch.Tensor]:
        """Weights of the linear layers, in order."""
        linears = [self.output, self.gate_up, self.down]
        return linears if self.following is None else [*linears, self.following]

    @property
    def norms(self) -> list[torch.Tensor]:
        """Weights of the norms, in order."""
        return [self.post_attention, self.pre_feedforward, self.post_feedforward, self.next_norm]


_Map = ctypes.c_ubyte * 128


class _Stage(ctypes.Structure):  # Stage in layer_tail.cu
    _fields_ = (
        ("weights", _Map), ("x", _Map), ("out", ctypes.c_void_p),
        ("y", ctypes.c_void_p), ("post_norm", ctypes.c_void_p), ("next_norm", ctypes.c_void_p),
        ("residual", ctypes.c_void_p), ("normed", ctypes.c_void_p), ("scale", ctypes.c_float),
        ("outputs", ctypes.c_int), ("tile_rows", ctypes.c_int), ("tiles", ctypes.c_int),
        ("steps", ctypes.c_int), ("kind", ctypes.c_int), ("pad", ctypes.c_ubyte * 56),
    )  # fmt: skip


class _LayerTail(ctypes.Structure):  # LayerTail in layer_tail.cu
    _fields_ = (
        ("stages", _Stage * 4), ("counters", ctypes.c_void_p), ("eps", ctypes.c_float),
        ("rows", ctypes.c_int), ("pad", ctypes.c_ubyte * 48),
    )  # fmt: skip


def layer_tail_fits(weights: LayerTailWeights) -> bool:
    """Return whether ``layer_tail`` supports these weights on their device."""
    width, device = weights.output.shape[0], weights.output.device
    return (
        is_hopper(device)
        and all(t.dtype == torch.bfloat16 for t in (*weights.linears, *weights.norms))
        and all(t.is_contiguous() and t.data_ptr() % 16 == 0 for t in weights.linears)
        and all(t.shape[1] % (COLUMNS * MAX_DEPTH) == 0 for t in weights.linears)
        and width % 256 == 0
        and width <= MAX_WIDTH
        and _kernel(device, 8, width) is not None
    )


def kernel_defines(rows: int, width: int) -> tuple[tuple[str, object], ...]:
    """Return the kernel's macros for x padded to ``rows``."""
    return (("ROWS", rows), ("WIDTH", width), ("DEPTH", _depth(rows)))


def _depth(rows: int) -> int:
    """Blocks of ``COLUMNS`` columns in a slot of the ring, for x padded to ``rows``."""
    return MAX_DEPTH if rows == 8 else MAX_DEPTH // 2


def _kernel(device: torch.device, rows: int, width: int) -> CudaKernel | None:
    fallback = "the parts of a layer's tail are launched one by one"
    return load_kernel(device, "layer_tail", kernel_defines(rows, width), SHARED_BYTES, fallback)


def layer_tail(
    attended: torch.Tensor,
    residual: torch.Tensor,
    weights: LayerTailWeights,
    buffers: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    out: torch.Tensor | None,
    counters: torch.Tensor,
    *,
    eps: float = 1e-6,
    pdl: bool = False,
) -> None:
    """Compute the output projection, norms, gated feed-forward, norms and the following linear.

    Args:
        attended: results of attention, [rows, attended], 1 to 64 rows.
        residual: [rows, width], updated in place.
        weights: weights that ``layer_tail_fits`` accepts.
        buffers: y and normed, [rows, width], and hidden, [rows, inner]; overwritten. Afterwards
            ``normed`` holds the norm before the following linear layer.
        out: output, [rows, n], in bfloat16, or in float32 for logits; ``None`` without
            ``following``.
        counters: int32 [8], zero.
        eps: added to the mean square in the norms.
        pdl: launch with programmatic dependent launch. The launch before must not write weights.

    Raises:
        ValueError: a shape, dtype or device is not supported.
    """
    (rows, width), (y, normed, hidden) = residual.shape, buffers
    _check(attended, residual, weights, buffers, out, counters)
    first_norms = (y, weights.post_attention, weights.pre_feedforward, residual, normed)
    last_norms = (y, weights.post_feedforward, weights.next_norm, residual, normed)
    padded = max(8, 1 << (rows - 1).bit_length())
    tail = _LayerTail(counters=counters.data_ptr(), eps=eps, rows=rows)
    tail.stages[0] = _stage(attended, weights.output, y, padded)
    tail.stages[1] = _stage(normed, weights.gate_up, hidden, padded, first_norms, gated=True)
    tail.stages[2] = _stage(hidden, weights.down, y, padded)
    tail.stages[3] = _stage(normed, weights.following, out, padded, last_norms, scale=weights.scale)
    kernel = _kernel(residual.device, padded, width)
    require(kernel is not None, "layer_tail needs a Hopper GPU; call layer_tail_fits first.")
    assert kernel is not None
    kernel.launch(multiprocessor_count(residual.device), THREADS, (tail,), pdl)


def _check(
    attended: torch.Tensor,
    residual: torch.Tensor,
    weights: LayerTailWeights,
    buffers: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    out: torch.Tensor | None,
    counters: torch.Tensor,
) -> None:
    """Raise ValueError unless the tensors of a call of ``layer_tail`` fit together."""
    (rows, width), inner, following = residual.shape, weights.down.shape[1], weights.following
    require(1 <= rows <= MAX_ROWS, f"layer_tail takes 1 to {MAX_ROWS} rows, not {rows}.")
    require((out is None) == (following is None), "out and weights.following go together.")
    y, normed, hidden = buffers
    activations = {
        "attended": (attended, weights.output.shape[1]), "residual": (residual, width),
        "y": (y, width), "normed": (normed, width), "hidden": (hidden, inner),
    }  # fmt: skip
    for name, (tensor, columns) in activations.items():
        require(
            tuple(tensor.shape) == (rows, columns)
            and tensor.dtype == torch.bfloat16
            and tensor.is_contiguous(),
            f"{name} is {tensor.dtype} {tuple(tensor.shape)}; it must be contiguous bfloat16 "
            f"{(rows, columns)}.",
        )
    wanted: list[tuple[torch.Tensor, tuple[int, ...]]]
    wanted = [(norm, (width,)) for norm in weights.norms]
    wanted += [(weights.output, (width, attended.shape[1])), (weights.gate_up, (2 * inner, width))]
    wanted += [(weights.down, (width, inner))]
    if following is not None and out is not None:
        wanted += [(following, (out.shape[1], width))]
    for weight, shape in wanted:
        require(
            tuple(weight.shape) == shape,
            f"A weight has shape {tuple(weight.shape)}; it must be {shape}.",
        )
    require(
        counters.dtype == torch.int32 and counters.numel() >= COUNTERS,
        f"counters must hold {COUNTERS} int32 elements.",
    )
    require(
        residual.is_cuda, f"layer_tail needs a Hopper GPU; its tensors are on {residual.device}."
    )


def _stage(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    out: torch.Tensor | None,
    rows: int,
    norms: tuple[torch.Tensor, ...] = (),
    *,
    scale: float = 1.0,
    gated: bool = False,
) -> _Stage:
    """Describe one linear layer to the kernel, for x padded to ``rows``.

    ``norms`` are y, both weights, the residual and the result of the norms that make x. Without a
    weight the stage consists of these alone.
    """
    stage = _Stage(scale=scale)
    if norms:
        pointers = [tensor.data_ptr() for tensor in norms]
        stage.y, stage.post_norm, stage.next_norm, stage.residual, stage.normed = pointers
    if weight is None or out is None:
        return stage
    (weight_rows, inner), outputs = weight.shape, out.shape[1]
    require(
        tuple(out.shape) == (x.shape[0], weight_rows // (2 if gated else 1))
        and out.is_contiguous(),
        f"out has shape {tuple(out.shape)}, which does not fit a weight of {tuple(weight.shape)}, "
        "or is not contiguous.",
    )
    require(
        out.dtype in (torch.bfloat16, torch.float32),
        f"out is {out.dtype}; it must be torch.bfloat16 or torch.float32.",
    )
    depth = _depth(rows)
    stage.tile_rows = _tile_rows(outputs, multiprocessor_count(x.device))
    stage.weights = _blocks_map(weight, stage.tile_rows, 1)
    stage.x = _blocks_map(x, rows, depth)
    stage.out, stage.outputs, stage.steps = out.data_ptr(), outputs, inner // (COLUMNS * depth)
    stage.tiles = -(-outputs // stage.tile_rows)
    stage.kind = GATED if gated else FLOAT32 if out.dtype == torch.float32 else BFLOAT16
    return stage


def _tile_rows(outputs: int, programs: int) -> int:
    """Weight rows of a tile, such that all programs get as many tiles and nearly as many rows."""
    rounds = -(-outputs // (MAX_TILE_ROWS * programs))
    return -(-outputs // (rounds * programs))


def _blocks_map(matrix: torch.Tensor, rows: int, depth: int) -> ctypes.Array[ctypes.c_ubyte]:
    """Describe [rows, columns] for copies of ``rows`` rows by ``depth`` blocks of columns."""
    count, columns = matrix.shape
    found: TensorMap = tensor_map(
        matrix.data_ptr(),
        sizes=(COLUMNS, count, columns // COLUMNS),
        strides=(columns * 2, COLUMNS * 2),
        box=(COLUMNS, rows, depth),
    )
    return _Map.from_buffer_copy(found)


def layer_tail_reference(
    attended: torch.Tensor, residual: torch.Tensor, weights: LayerTailWeights, eps: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Compute what ``layer_tail`` computes, in float64.

    Returns:
        The residual, the norm before the following linear layer, and the output.
    """
    y = linear_few_rows_reference(attended, weights.output)
    first_norms = (weights.post_attention, weights.pre_feedforward)
    residual, normed = add_rms_norm_reference(y, residual, *first_norms, eps=eps)
    assert normed is not None
    hidden = linear_few_rows_reference(normed, weights.gate_up, gated=True)
    y = linear_few_rows_reference(hidden, weights.down)
    last_norms = (weights.post_feedforward, weights.next_norm)
    residual, normed = add_rms_norm_reference(
        y, residual, *last_norms, scale=weights.scale, eps=eps
    )
    assert normed is not None
    if weights.following is None:
        return residual, normed, None
    return residual, normed, linear_few_rows_reference(normed, weights.following)
