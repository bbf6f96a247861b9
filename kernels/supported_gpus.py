"""The GPUs that the kernels support.

This module imports nothing, so that it can be used before PyTorch is imported.
"""

MIN_CAPABILITY, CAPABILITY_LIMIT = 8.0, 13.0
"""Compute capabilities from ``MIN_CAPABILITY`` to below ``CAPABILITY_LIMIT`` are supported.

Older GPUs have no units for bfloat16 and no asynchronous copies to shared memory. The tests compile
the Triton kernels for 8.0, 8.6, 8.9, 9.0, 10.0 and 12.0; newer GPUs are unknown."""
BFLOAT16_MIN_CAPABILITY = 8.0
"""GPUs below this compute capability have no units for bfloat16."""
DEPENDENT_LAUNCH_MIN_CAPABILITY = 9.0
"""GPUs below this compute capability have no programmatic dependent launch, and no bulk copies."""
MEASURED_GPUS = {9.0: "an H100 and an H200"}
"""The GPUs on which the kernels have run, by compute capability."""


def is_supported(capability: float) -> bool:
    """Return whether a GPU of this compute capability, such as 9.0, runs the kernels."""
    return MIN_CAPABILITY <= capability < CAPABILITY_LIMIT


def unsupported_reason(capability: float) -> str:
    """Return a clause that says why a GPU of this compute capability is not supported."""
    return (
        f"a GPU of compute capability {capability:g} does not run the kernels, which need one from "
        f"{MIN_CAPABILITY:g} to below {CAPABILITY_LIMIT:g}"
    )


def experience(capability: float) -> str:
    """Return a clause that says what is known of the kernels on GPUs of a compute capability."""
    ran = MEASURED_GPUS.get(capability)
    if ran is None:
        return f"the kernels have only been compiled for compute capability {capability:g}, not run"
    return f"the kernels have run on {ran}"
