"""Linear layers whose weights are a stored matrix, by the kernel that suits the number of rows."""

from collections.abc import Callable

import torch

from ..argument_checks import FLOAT_DTYPES, require, require_tensor
from ..layers.gated_activation import gated_activation
from ..layers.linear_few_rows import ACTIVATIONS, require_activation
from .stored_many_rows import stored_many_rows, stored_many_rows_fits
from .stored_matrix import StoredMatrix
from .stored_stream import (
    MAX_ROWS,
    StreamConfig,
    stored_stream,
    stored_stream_fits,
    stream_config,
    stream_splits,
)
from .triton_stored_rows import triton_expand, triton_stored_rows

TILED_ROWS = 64
"""Most rows that are multiplied by weights expanded on the way, not by expanded ones."""


def stored_product(
    x: torch.Tensor,
    matrix: StoredMatrix,
    out: torch.Tensor,
    *,
    gated: bool = False,
    activation: str = "silu",
    bias: torch.Tensor | None = None,
    config: StreamConfig | None = None,
    pdl: bool = False,
) -> torch.Tensor:
    """Compute ``x @ matrix.T + bias``, or ``activation(x @ gate.T) * (x @ up.T)`` if gated.

    Up to :data:`TILED_ROWS` rows, weights are expanded in registers, for more rows on Hopper in
    shared memory. Elsewhere, and for numbers of rows that leave tiles part-empty, they are expanded
    to memory first, which needs room for the matrix in ``x``'s type.

    Args:
        x: [rows, K].
        matrix: [N, K]; [2N, K] if gated, gate rows first.
        out: [rows, N], written; or float32 [parts, rows, N], whose sum over the first axis is the
            result, for up to :data:`MAX_ROWS` rows (see ``product_parts``).
        gated: see above.
        activation: a key of ``ACTIVATIONS``.
        bias: [N]; only if neither gated nor in parts.
        config: configuration of the CUDA kernel; ``None`` for ``stream_config``.
        pdl: launch with programmatic dependent launch, if the CUDA kernel runs.

    Returns:
        ``out``.

    Raises:
        ValueError: a shape or dtype does not fit, or a configuration is given that cannot run.
    """
    require_tensor("x", x, FLOAT_DTYPES, 2)
    require_activation(activation)
    rows, n = x.shape[0], matrix.rows // (2 if gated else 1)
    parts = out.shape[0] if out.dim() == 3 else 1
    wanted = (parts, rows, n) if out.dim() == 3 else (rows, n)
    require(x.shape[1] == matrix.columns, f"x has {x.shape[1]} columns, not {matrix.columns}.")
    require(tuple(out.shape) == wanted, f"out has shape {tuple(out.shape)}; it must be {wanted}.")
    require_tensor("out", out, torch.float32 if parts > 1 else FLOAT_DTYPES, len(wanted))
    require(
        bias is None or (tuple(bias.shape) == (n,) and not gated and parts == 1),
        f"bias must have {n} elements, in a layer that is neither gated nor in parts.",
    )
    silu = activation == "silu"
    if rows > MAX_ROWS:
        require(parts == 1, f"Parts are for at most {MAX_ROWS} rows, not {rows}.")
        require(config is None, f"A configuration is for at most {MAX_ROWS} rows, not {rows}.")
    if rows > TILED_ROWS:
        if not stored_many_rows_fits(matrix, x, out, gated) or not stored_many_rows(
            x, matrix, out, gated=gated, silu=silu, pdl=pdl
        ):
            return _expanded_product(x, matrix, out, gated, activation, bias)
        return out if bias is None else out.add_(bias)
    if rows == 0:
        return out
    fits = stored_stream_fits(matrix, x.dtype) and (parts > 1 or out.dtype == torch.bfloat16)
    chosen = config or (stream_config(matrix, rows, gated, parts) if fits else None)
    if not (fits and chosen is not None) or not stored_stream(
        x, matrix, out, chosen, gated=gated, silu=silu, bias=bias, pdl=pdl
    ):
        require(config is None, "The CUDA kernel does not run here; leave config at None.")
        if out.dim() == 3:
            out[1:].zero_()
        whole = out if out.dim() == 2 else out[0]
        triton_stored_rows(x, matrix, whole, gated=gated, silu=silu, bias=bias)
    return out


def product_parts(matrix: StoredMatrix, rows: int, x_dtype: torch.dtype) -> int:
    """Return the parts in which a layer that is not gated is best computed, 1 for one result.

    Up to :data:`MAX_ROWS` rows it does not depend on their number.
    """
    if rows > MAX_ROWS or not stored_stream_fits(matrix, x_dtype):
        return 1
    return stream_splits(matrix)


def _expanded_product(
    x: torch.Tensor,
    matrix: StoredMatrix,
    out: torch.Tensor,
    gated: bool,
    activation: str,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    weight = triton_expand(matrix, x.new_empty(matrix.rows, matrix.columns))
    if gated:
        both = x @ weight.T
        gate, up = both.chunk(2, dim=1)
        return gated_activation(gate, up, out, activation)
    if out.dtype != x.dtype:
        out.copy_(x @ weight.T)
    else:
        torch.mm(x, weight.T, out=out)
    return out if bias is None else out.add_(bias)


def stored_product_reference(
    x: torch.Tensor, matrix: StoredMatrix, gated: bool = False, activation: str = "silu"
) -> torch.Tensor:
    """Compute what ``stored_product`` does, without a bias, in float64."""
    product = x.double() @ matrix.expand(torch.float64).T
    if not gated:
        return product
    gate, up = product.chunk(2, dim=1)
    act: Callable[[torch.Tensor], torch.Tensor] = ACTIVATIONS[activation]
    return act(gate) * up
