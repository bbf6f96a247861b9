"""From one layer's attention to the next layer's first product in one launch (``layer_tail.cu``).

On Hopper in bfloat16, for up to 64 rows. Elsewhere ``linear_few_rows`` and ``add_rms_norm`` do the
same in six launches.

Its programs wait for one another, one on each multiprocessor. Two of these launches must not run
beside one another on a GPU, from two streams or two processes under MPS: neither might end.
"""

import ctypes
from dataclasses import dataclass

import torch

from ..cuda.nvrtc import CudaKernel, is_hopper, load_kernel, tensor_map
from ..triton_launch import multiprocessor_count, require
from .linear_few_rows import MAX_ROWS, linear_few_rows_reference
from .rms_norm import add_rms_norm_reference

SOURCES = ("hopper.cuh", "layer_tail.cu")
TILE, COLUMNS = 64, 64  # most weight rows of a tile; columns that a copy lays beside one another
DEEPEST = 4  # times as many columns in a slot of the ring, at most
SHARED, THREADS = 232448, 224
WIDEST = 8192  # a row's norms are computed in the registers of 128 threads
COUNTERS = 8  # int32 per launch, zero at its start
PLAIN, GATED, WIDE = range(3)


@dataclass(frozen=True, slots=True)
class LayerTailWeights:
    """Weights from the end of a layer's attention on, [out, in] each, bfloat16.

    Args:
        output: [width, attended]. gate_up: [2 * inner, width], gate rows first. down: [width,
            inner]. following: [n, width], the next layer's first product, or the head; ``None``
            where the chain ends with the norm before it.
        post_attention, pre_feedforward, post_feedforward, next_norm: [width].
        scale: what the residual is multiplied by at the layer's end.
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


_Map = ctypes.c_ubyte * 128


class _Phase(ctypes.Structure):
    _fields_ = (
        ("weights", _Map), ("x", _Map), ("out", ctypes.c_void_p),
        ("y", ctypes.c_void_p), ("post", ctypes.c_void_p), ("next", ctypes.c_void_p),
        ("residual", ctypes.c_void_p), ("normed", ctypes.c_void_p), ("scale", ctypes.c_float),
        ("n", ctypes.c_int), ("tile", ctypes.c_int), ("tiles", ctypes.c_int),
        ("steps", ctypes.c_int), ("kind", ctypes.c_int), ("pad", ctypes.c_ubyte * 56),
    )  # fmt: skip


class _Chain(ctypes.Structure):
    _fields_ = (
        ("phases", _Phase * 4), ("counters", ctypes.c_void_p), ("eps", ctypes.c_float),
        ("rows", ctypes.c_int), ("pad", ctypes.c_ubyte * 48),
    )  # fmt: skip


def layer_tail_fits(weights: LayerTailWeights) -> bool:
    """Whether ``layer_tail`` can run with these weights on their device."""
    width = weights.output.shape[0]
    products = [weights.output, weights.gate_up, weights.down]
    products += [] if weights.following is None else [weights.following]
    norms = (weights.post_attention, weights.pre_feedforward, weights.post_feedforward)
    device = weights.output.device
    return (
        is_hopper(device)
        and all(t.dtype == torch.bfloat16 for t in (*products, *norms, weights.next_norm))
        and all(t.is_contiguous() and t.data_ptr() % 16 == 0 for t in products)
        and all(t.shape[1] % (COLUMNS * DEEPEST) == 0 for t in products)
        and width % 256 == 0
        and width <= WIDEST
        and _kernel(device, 8, width) is not None
    )


def _depth(rows: int) -> int:
    """Times ``COLUMNS`` columns in a slot of the ring, for x padded to ``rows``."""
    return DEEPEST if rows == 8 else DEEPEST // 2


def defines(rows: int, width: int) -> tuple[tuple[str, object], ...]:
    """The kernel's macros, for x padded to ``rows``."""
    return (("ROWS", rows), ("WIDTH", width), ("DEPTH", _depth(rows)))


def _kernel(device: torch.device, rows: int, width: int) -> CudaKernel | None:
    otherwise, macros = "layers are launched piece by piece", defines(rows, width)
    return load_kernel(device, SOURCES, "layer_tail", macros, SHARED, otherwise)


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
    """Output product, norms, gated feed-forward, norms, the following product.

    Args:
        attended: [rows, attended], at most 64 rows. residual: [rows, width], updated in place.
        weights: for which ``layer_tail_fits``.
        buffers: y and normed, [rows, width], and hidden [rows, inner], overwritten; ``normed``
            holds the norm before the following product afterwards.
        out: [rows, n] of bfloat16, or float32 as logits want it; ``None`` without ``following``.
        counters: int32 [8], zero.

    Raises:
        ValueError: a shape, type or device that does not fit.
    """
    (rows, width), (y, normed, hidden) = residual.shape, buffers
    _check(attended, residual, weights, buffers, out, counters)
    first_norm = (y, weights.post_attention, weights.pre_feedforward, residual, normed)
    last_norm = (y, weights.post_feedforward, weights.next_norm, residual, normed)
    chain = _Chain(counters=counters.data_ptr(), eps=eps, rows=rows)
    padded = max(8, 1 << (rows - 1).bit_length())
    chain.phases[0] = _phase(attended, weights.output, y, padded)
    chain.phases[1] = _phase(normed, weights.gate_up, hidden, padded, first_norm, gated=True)
    chain.phases[2] = _phase(hidden, weights.down, y, padded)
    chain.phases[3] = _phase(normed, weights.following, out, padded, last_norm, scale=weights.scale)
    kernel = _kernel(residual.device, padded, width)
    require(kernel is not None, "layer_tail needs a Hopper GPU; ask layer_tail_fits first")
    assert kernel is not None
    kernel.launch(multiprocessor_count(residual.device), THREADS, (chain,), pdl)


def _check(
    attended: torch.Tensor,
    residual: torch.Tensor,
    weights: LayerTailWeights,
    buffers: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    out: torch.Tensor | None,
    counters: torch.Tensor,
) -> None:
    """ValueError where the tensors of ``layer_tail`` do not fit together."""
    (rows, width), inner, following = residual.shape, weights.down.shape[1], weights.following
    require(1 <= rows <= MAX_ROWS, f"{rows} rows; layer_tail takes 1 to {MAX_ROWS}")
    require((out is None) == (following is None), "out and following go together")
    y, normed, hidden = buffers
    activations = [
        (attended, weights.output.shape[1]), (residual, width), (y, width), (normed, width),
        (hidden, inner),
    ]  # fmt: skip
    for tensor, columns in activations:
        require(
            tuple(tensor.shape) == (rows, columns)
            and tensor.dtype == torch.bfloat16
            and tensor.is_contiguous(),
            f"a tensor is {tensor.dtype} {tuple(tensor.shape)}; bfloat16 {(rows, columns)} fits",
        )
    norms = (weights.post_attention, weights.pre_feedforward, weights.post_feedforward)
    wanted: list[tuple[torch.Tensor, tuple[int, ...]]]
    wanted = [(norm, (width,)) for norm in (*norms, weights.next_norm)]
    wanted += [(weights.output, (width, attended.shape[1])), (weights.gate_up, (2 * inner, width))]
    wanted += [(weights.down, (width, inner))]
    if following is not None and out is not None:
        wanted += [(following, (out.shape[1], width))]
    for each, shape in wanted:
        require(tuple(each.shape) == shape, f"a weight is {tuple(each.shape)}; {shape} fits")
    require(counters.dtype == torch.int32 and counters.numel() >= COUNTERS, "8 int32 counters")
    require(residual.is_cuda, f"tensors are on {residual.device}; layer_tail needs a Hopper GPU")


def _phase(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    out: torch.Tensor | None,
    rows: int,
    norm: tuple[torch.Tensor, ...] = (),
    *,
    scale: float = 1.0,
    gated: bool = False,
) -> _Phase:
    """One product for the kernel, x padded to ``rows``; without a weight, only its norm."""
    phase = _Phase(scale=scale)
    if norm:
        pointers = [tensor.data_ptr() for tensor in norm]
        phase.y, phase.post, phase.next, phase.residual, phase.normed = pointers
    if weight is None or out is None:
        return phase
    (outputs, inner), n = weight.shape, out.shape[1]
    require(
        tuple(out.shape) == (x.shape[0], outputs // (2 if gated else 1)) and out.is_contiguous(),
        f"out is {tuple(out.shape)} for a weight of {tuple(weight.shape)}",
    )
    require(out.dtype in (torch.bfloat16, torch.float32), f"out is {out.dtype}")
    phase.tile = _tile(n, multiprocessor_count(x.device))
    phase.weights = _columns(weight, phase.tile, 1)
    depth = _depth(rows)
    phase.x = _columns(x, rows, depth)
    phase.out, phase.n, phase.steps = out.data_ptr(), n, inner // (COLUMNS * depth)
    phase.tiles = -(-n // phase.tile)
    phase.kind = GATED if gated else WIDE if out.dtype == torch.float32 else PLAIN
    return phase


def _tile(n: int, programs: int) -> int:
    """Weight rows a tile: all programs get as many tiles, and nearly as many rows."""
    rounds = -(-n // (TILE * programs))
    return -(-n // (rounds * programs))


def _columns(matrix: torch.Tensor, rows: int, depth: int) -> ctypes.Array[ctypes.c_ubyte]:
    """A descriptor of [rows, columns], of which a copy takes ``rows`` by ``64 * depth``."""
    count, columns = matrix.shape
    found = tensor_map(
        matrix.data_ptr(), (COLUMNS, count, columns // COLUMNS), (columns * 2, 128),
        (COLUMNS, rows, depth),
    )  # fmt: skip
    return _Map.from_buffer_copy(found)


def layer_tail_reference(
    attended: torch.Tensor, residual: torch.Tensor, weights: LayerTailWeights, eps: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """What ``layer_tail`` computes, in float64: (residual, normed, out)."""
    y = linear_few_rows_reference(attended, weights.output)
    first = (weights.post_attention, weights.pre_feedforward)
    residual, normed = add_rms_norm_reference(y, residual, *first, eps=eps)
    assert normed is not None
    y = linear_few_rows_reference(
        linear_few_rows_reference(normed, weights.gate_up, gated=True), weights.down
    )
    last = (weights.post_feedforward, weights.next_norm)
    residual, normed = add_rms_norm_reference(y, residual, *last, scale=weights.scale, eps=eps)
    assert normed is not None
    following = weights.following
    return (
        residual,
        normed,
        None if following is None else linear_few_rows_reference(normed, following),
    )
