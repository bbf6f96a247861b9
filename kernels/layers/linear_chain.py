"""Up to four linear layers, and the norms between them, in one launch.

The kernel (``layer_tail.cu``) runs on Hopper, in bfloat16, for up to 64 rows. Elsewhere
``linear_few_rows`` and ``add_rms_norm`` do the same, with a launch for each layer and norm.

The kernel's programs wait for one another, one on each multiprocessor. Never run two of these
launches at the same time on a GPU, from two streams or from two processes under MPS: they could
wait for each other forever.
"""

import ctypes
from collections.abc import Sequence

import torch

from ..argument_checks import require
from ..cuda.cuda_driver import CudaKernel, TensorMap, tensor_map
from ..cuda.nvrtc import is_hopper, load_kernel
from ..triton_launch import multiprocessor_count
from .chain_layers import ChainLinear
from .linear_few_rows import MAX_ROWS, require_activation

MAX_TILE_ROWS = 64  # weight rows
COLUMNS = 64  # of a block, which a copy places beside the block before it
MAX_DEPTH = 4  # blocks in a slot of the ring
SHARED_BYTES, THREADS = 232448, 224
MAX_WIDTH = 8192  # 128 threads hold a row in registers to compute its norms
MAX_LINEARS = 4
STREAM_WIDTH = COLUMNS  # of a residual that a chain does not have
COUNTERS = 2 * MAX_LINEARS  # int32 counters for a launch, zero when it starts
BFLOAT16, GATED, FLOAT32, ADDED = range(4)  # OutputKind in layer_tail.cu


_Map = ctypes.c_ubyte * 128


class _Stage(ctypes.Structure):  # Stage in layer_tail.cu
    _fields_ = (
        ("weights", _Map), ("x", _Map), ("out", ctypes.c_void_p), ("out_bias", ctypes.c_void_p),
        ("y", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("post_norm", ctypes.c_void_p),
        ("next_norm", ctypes.c_void_p), ("residual", ctypes.c_void_p), ("normed", ctypes.c_void_p),
        ("scale", ctypes.c_float), ("outputs", ctypes.c_int), ("tile_rows", ctypes.c_int),
        ("tiles", ctypes.c_int), ("steps", ctypes.c_int), ("kind", ctypes.c_int),
        ("parts", ctypes.c_int), ("squares", ctypes.c_void_p), ("square_tiles", ctypes.c_int),
        ("pad", ctypes.c_ubyte * 20),
    )  # fmt: skip


class _LayerTail(ctypes.Structure):  # LayerTail in layer_tail.cu
    _fields_ = (
        ("stages", _Stage * MAX_LINEARS), ("counters", ctypes.c_void_p), ("eps", ctypes.c_float),
        ("norm_offset", ctypes.c_float), ("rows", ctypes.c_int), ("count", ctypes.c_int),
        ("pad", ctypes.c_ubyte * 40),
    )  # fmt: skip


def linear_chain_fits(linears: Sequence[ChainLinear], width: int, activation: str) -> bool:
    """Return whether ``linear_chain`` supports these layers on their device.

    Args:
        width: columns of the residual.
        activation: of gated layers.
    """
    weights = [linear.weight for linear in linears if linear.weight is not None]
    small = [linear.bias for linear in linears if linear.bias is not None]
    small += [each for linear in linears if linear.norms for each in linear.norms.tensors]
    device = weights[0].device
    return (
        is_hopper(device)
        and 1 <= len(linears) <= MAX_LINEARS
        and all(t.dtype == torch.bfloat16 and t.is_contiguous() for t in (*weights, *small))
        and all(t.data_ptr() % 16 == 0 and t.shape[1] % COLUMNS == 0 for t in weights)
        and width % COLUMNS == 0
        and width <= MAX_WIDTH
        and _kernel(device, 8, width, activation) is not None
    )


def kernel_defines(
    rows: int, width: int, activation: str = "gelu_tanh"
) -> tuple[tuple[str, object], ...]:
    """Return the kernel's macros for x padded to ``rows``."""
    silu = int(activation == "silu")
    return (("ROWS", rows), ("WIDTH", width), ("DEPTH", _depth(rows)), ("SILU", silu))


def _depth(rows: int) -> int:
    """Blocks of ``COLUMNS`` columns in a slot of the ring, for x padded to ``rows``."""
    return MAX_DEPTH if rows == 8 else MAX_DEPTH // 2


def _kernel(device: torch.device, rows: int, width: int, activation: str) -> CudaKernel | None:
    defines = kernel_defines(rows, width, activation)
    fallback = "the parts of a layer's tail are launched one by one"
    return load_kernel(device, "layer_tail", defines, SHARED_BYTES, fallback)


def linear_chain(
    x: torch.Tensor,
    residual: torch.Tensor,
    linears: Sequence[ChainLinear],
    normed: torch.Tensor,
    outs: Sequence[torch.Tensor | None],
    counters: torch.Tensor,
    *,
    squares: torch.Tensor | None = None,
    activation: str = "gelu_tanh",
    norm_offset: float = 0.0,
    eps: float = 1e-6,
    pdl: bool = False,
) -> None:
    """Compute linear layers one after another, each from the output of the one before.

    With ``squares``, norms cost no time of their own if none has a ``post`` weight and a layer
    follows each: the layer before them adds to the residual and leaves sums of squares, ``normed``
    holds the residual times the norm's weight, and the layer behind them divides its results by the
    root mean square.

    Args:
        x: [rows, in], 1 to 64 rows; the input of the first layer, or, if that has norms, their y:
            [rows, width], or float32 [parts, rows, width], whose sum over the parts counts.
        residual: [rows, width], updated in place by the norms.
        linears: 1 to 4 layers that ``linear_chain_fits`` accepts.
        normed: [rows, width], overwritten with the result of the norms.
        outs: output of each layer, [rows, out], in bfloat16, or in float32 for the last one;
            ``None`` without a weight.
        counters: int32 [8], zero.
        squares: float32, ``squares_size`` elements, overwritten; ``None`` to compute every norm by
            itself.
        activation: of gated layers, a key of ``linear_few_rows.ACTIVATIONS``.
        norm_offset: what is added to the weights of all norms.
        eps: added to the mean square in the norms.
        pdl: launch with programmatic dependent launch. The launch before must not write weights.

    Raises:
        ValueError: a shape, dtype or device is not supported.
    """
    require_activation(activation)
    _check(x, residual, linears, normed, outs, counters, squares)
    rows, width = residual.shape
    padded = max(8, 1 << (rows - 1).bit_length())
    chain = _LayerTail(
        counters=counters.data_ptr(), eps=eps, norm_offset=norm_offset, rows=rows,
        count=len(linears),
    )  # fmt: skip
    # Norms that are computed by themselves read the residual before all programs have added to it.
    deferred = squares is not None and all(map(_defers, linears))
    before = x
    for index, (linear, out) in enumerate(zip(linears, outs, strict=True)):
        chain.stages[index] = _stage(before, residual, normed, linear, out, padded)
        before = before if out is None else out
        if deferred and index and linear.norms is not None and squares is not None:
            _defer_norm(chain.stages[index - 1], chain.stages[index], squares)
    kernel = _kernel(residual.device, padded, width, activation)
    require(kernel is not None, "linear_chain needs a Hopper GPU; call linear_chain_fits first.")
    assert kernel is not None
    kernel.launch(multiprocessor_count(residual.device), THREADS, (chain,), pdl)


def linear_stream_fits(weight: torch.Tensor, activation: str = "gelu_tanh") -> bool:
    """Return whether ``linear_stream`` supports this weight on its device."""
    return linear_chain_fits([ChainLinear(weight)], STREAM_WIDTH, activation)


def linear_stream(
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    counters: torch.Tensor,
    *,
    gated: bool = False,
    activation: str = "gelu_tanh",
    pdl: bool = False,
) -> torch.Tensor:
    """Compute one linear layer as a chain of its own.

    For layers of some tens of megabytes this is faster than ``linear_few_rows``: with dependent
    launch their weights are in shared memory by the time that x is there.

    Args:
        x: [rows, in], 1 to 64 rows.
        weight: [out, in], or [2 * out, in] if gated, gate rows first; ``linear_stream_fits``
            accepts it.
        out: [rows, out], in bfloat16, or in float32 if not gated.
        counters: int32 [8], zero; not changed.
        gated: compute ``activation(x @ gate.T) * (x @ up.T)``.
        activation: a key of ``linear_few_rows.ACTIVATIONS``.
        pdl: as in ``linear_chain``.

    Returns:
        ``out``.

    Raises:
        ValueError: a shape, dtype or device is not supported.
    """
    unused = x.new_empty(x.shape[0], STREAM_WIDTH)  # the residual, which nothing reads
    linear_chain(
        x, unused, [ChainLinear(weight, gated=gated)], unused, [out], counters,
        activation=activation, pdl=pdl,
    )  # fmt: skip
    return out


def squares_size(width: int, device: torch.device) -> int:
    """Return the float32 elements of ``squares`` for a residual of ``width`` columns."""
    tile_rows = _tile_rows(width, multiprocessor_count(device))
    return -(-width // tile_rows) * MAX_ROWS


def _defers(linear: ChainLinear) -> bool:
    """Return whether the norms before a layer can be divided among it and the layer before."""
    return linear.norms is None or (linear.norms.post is None and linear.weight is not None)


def _defer_norm(before: _Stage, stage: _Stage, squares: torch.Tensor) -> None:
    """Let the layer before add to the residual, and this one divide by the root mean square."""
    before.kind, before.out_bias, before.scale = ADDED, stage.bias, stage.scale
    before.residual, before.normed = stage.residual, stage.normed
    before.next_norm, before.squares = stage.next_norm, squares.data_ptr()
    stage.y, stage.squares = None, squares.data_ptr()
    # A residual that no norm follows is taken as it is.
    stage.square_tiles = before.tiles if stage.next_norm else 0


def _check(
    x: torch.Tensor,
    residual: torch.Tensor,
    linears: Sequence[ChainLinear],
    normed: torch.Tensor,
    outs: Sequence[torch.Tensor | None],
    counters: torch.Tensor,
    squares: torch.Tensor | None,
) -> None:
    """Raise ValueError unless the tensors of a call of ``linear_chain`` fit together."""
    rows, width = residual.shape
    require(1 <= rows <= MAX_ROWS, f"linear_chain takes 1 to {MAX_ROWS} rows, not {rows}.")
    require(
        1 <= len(linears) <= MAX_LINEARS and len(linears) == len(outs),
        f"linear_chain takes 1 to {MAX_LINEARS} layers and an output of each.",
    )
    for name, tensor in (("residual", residual), ("normed", normed)):
        _require_rows(name, tensor, rows, width)
    before = x
    for index, (linear, out) in enumerate(zip(linears, outs, strict=True)):
        last = index == len(linears) - 1
        require((linear.weight is None) == (out is None), "An output and a weight go together.")
        require(last or out is not None, "Only the last layer may have no weight.")
        if linear.norms is not None:
            for tensor in linear.norms.tensors:
                _require_shape(tensor, (width,))
            if before.dim() == 3:
                require(
                    before.dtype == torch.float32
                    and tuple(before.shape[1:]) == (rows, width)
                    and before.is_contiguous()
                    and index == 0,
                    f"Parts must be contiguous float32 [parts, {rows}, {width}].",
                )
            else:
                _require_rows("y", before, rows, width)
        if linear.weight is None or out is None:
            continue
        inner = width if linear.norms is not None else linear.weight.shape[1]
        if linear.norms is None:
            _require_rows("x" if index == 0 else "An output", before, rows, inner)
        columns = out.shape[1]
        _require_shape(linear.weight, (columns * (2 if linear.gated else 1), inner))
        _require_rows("An output", out, rows, columns, float32=last)
        if linear.bias is not None:
            require(not linear.gated, "A gated layer cannot have a bias.")
            _require_shape(linear.bias, (columns,))
        before = out
    _check_workspaces(residual, counters, squares)


def _check_workspaces(
    residual: torch.Tensor, counters: torch.Tensor, squares: torch.Tensor | None
) -> None:
    size = squares_size(residual.shape[1], residual.device) if squares is not None else 0
    require(
        squares is None or (squares.dtype == torch.float32 and squares.numel() >= size),
        "squares must be float32 and hold squares_size elements.",
    )
    require(
        counters.dtype == torch.int32 and counters.numel() >= COUNTERS,
        f"counters must hold {COUNTERS} int32 elements.",
    )
    require(
        residual.is_cuda, f"linear_chain needs a Hopper GPU; its tensors are on {residual.device}."
    )


def _require_rows(
    name: str, tensor: torch.Tensor, rows: int, columns: int, *, float32: bool = False
) -> None:
    dtypes = (torch.bfloat16, torch.float32) if float32 else (torch.bfloat16,)
    require(
        tuple(tensor.shape) == (rows, columns)
        and tensor.dtype in dtypes
        and tensor.is_contiguous(),
        f"{name} is {tensor.dtype} {tuple(tensor.shape)}; it must be contiguous bfloat16 "
        f"{(rows, columns)}.",
    )


def _require_shape(weight: torch.Tensor, shape: tuple[int, ...]) -> None:
    require(
        tuple(weight.shape) == shape,
        f"A weight has shape {tuple(weight.shape)}; it must be {shape}.",
    )


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _stage(
    before: torch.Tensor,
    residual: torch.Tensor,
    normed: torch.Tensor,
    linear: ChainLinear,
    out: torch.Tensor | None,
    rows: int,
) -> _Stage:
    """Describe one linear layer, and its norms, to the kernel, for x padded to ``rows``."""
    stage, norms, weight = _Stage(scale=1.0), linear.norms, linear.weight
    if norms is not None:
        stage.y, stage.bias = before.data_ptr(), _address(norms.bias)
        stage.post_norm, stage.next_norm = _address(norms.post), _address(norms.next)
        stage.residual, stage.normed = residual.data_ptr(), normed.data_ptr()
        stage.scale = norms.scale
        stage.parts = before.shape[0] if before.dim() == 3 else 0
    if weight is None or out is None:
        return stage
    x = before if norms is None else normed
    inner, outputs, depth = weight.shape[1], out.shape[1], _depth(rows)
    stage.tile_rows = _tile_rows(outputs, multiprocessor_count(x.device))
    stage.weights = _blocks_map(weight, stage.tile_rows, 1)
    stage.x = _blocks_map(x, rows, depth)
    stage.out, stage.outputs, stage.out_bias = out.data_ptr(), outputs, _address(linear.bias)
    stage.steps = -(-inner // (COLUMNS * depth))  # copies fill up the last one with zeros
    stage.tiles = -(-outputs // stage.tile_rows)
    stage.kind = GATED if linear.gated else FLOAT32 if out.dtype == torch.float32 else BFLOAT16
    return stage


def _tile_rows(outputs: int, programs: int) -> int:
    """Return a tile's weight rows: all programs get equally many tiles, of nearly equal size."""
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
