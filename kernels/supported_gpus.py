"""Which GPUs the kernels run on. Imports nothing, so that it can be asked before torch is there."""

MIN_CAPABILITY, CAPABILITY_LIMIT = 9.0, 12.0
"""Compute capabilities. The kernels start one another ahead of time, which begins with Hopper, and
take more shared memory than GPUs for desktops have."""
BFLOAT16_MIN_CAPABILITY = 8.0
"""Below, GPUs have no units for bfloat16."""


def is_supported(capability: float) -> bool:
    """Whether a GPU of this compute capability, 9.0 for instance, runs the kernels."""
    return MIN_CAPABILITY <= capability < CAPABILITY_LIMIT


def unsupported_reason(capability: float) -> str:
    """Why not, in one clause."""
    return (
        f"a GPU of compute capability {capability:g} does not run the kernels, which need one from "
        f"{MIN_CAPABILITY:g}, below {CAPABILITY_LIMIT:g}"
    )
