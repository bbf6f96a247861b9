"""The GPUs that the kernels support.

This module imports nothing, so that it can be used before PyTorch is imported.
"""

MIN_CAPABILITY, CAPABILITY_LIMIT = 9.0, 12.0
"""Compute capabilities from ``MIN_CAPABILITY`` to below ``CAPABILITY_LIMIT`` are supported.

Programmatic dependent launch begins with Hopper (9.0), and the kernels need more shared memory than
desktop GPUs (12.0) have."""
BFLOAT16_MIN_CAPABILITY = 8.0
"""GPUs below this compute capability have no units for bfloat16."""


def is_supported(capability: float) -> bool:
    """Return whether a GPU of this compute capability, such as 9.0, runs the kernels."""
    return MIN_CAPABILITY <= capability < CAPABILITY_LIMIT


def unsupported_reason(capability: float) -> str:
    """Return a clause that says why a GPU of this compute capability is not supported."""
    return (
        f"a GPU of compute capability {capability:g} does not run the kernels, which need one from "
        f"{MIN_CAPABILITY:g} to below {CAPABILITY_LIMIT:g}"
    )
