"""The devices over which a solver spreads its attempts."""

from __future__ import annotations

import os
import re

from ..solver_config import DEVICE, SolverConfig, SolverError

AUTO = "auto"
"""Stands for all GPUs of the machine."""


def parse_devices(text: str | None) -> str | tuple[str, ...] | None:
    """Return the devices that an option names: "auto", or a list such as "cuda:0,cuda:1".

    Raises:
        SolverError: the text is neither.
    """
    if text is None or text == AUTO:
        return text
    names = tuple(name.strip() for name in text.split(","))
    if not all(DEVICE.fullmatch(name) for name in names):
        raise SolverError(f"--devices must be auto or a list such as cuda:0,cuda:1, not {text!r}.")
    return names


def choose_devices(config: SolverConfig) -> tuple[str, ...]:
    """Return a device for each engine process, or none for one engine in this process.

    "auto" takes all GPUs that PyTorch can see, but no more than there are sequences at a time: the
    attempts, or `max_running` of the engine's settings. A single GPU, or none, needs no further
    process.

    Raises:
        SolverError: if a device is named that this machine lacks, or if the engine's settings name
            a device too.
    """
    devices, own = config.devices, None if config.engine is None else config.engine.device
    if devices is None or (devices == AUTO and own == "cpu"):
        return ()
    if devices != AUTO and own is not None:
        raise SolverError(f"Give either a device ({own}) or a list of devices, not both.")
    if devices == AUTO and not _may_have_several():
        return ()
    count = _count_gpus() if devices == AUTO or "cuda" in devices[0] else 0
    most = max(config.attempts * config.problems, config.engine.max_running if config.engine else 0)
    if devices == AUTO:
        names = tuple(f"cuda:{index}" for index in range(count))[:most]
        return names if len(names) > 1 else ()
    for name in devices:
        if name != "cpu" and int(name.partition(":")[2]) >= count:
            raise SolverError(f"There is no device {name}; this machine has {_gpus(count)}.")
    return tuple(devices)[:most]


def device_environment(device: str) -> dict[str, str]:
    """Return the variables with which a process sees this device alone, as its first one."""
    if device == "cpu":
        return {"CUDA_VISIBLE_DEVICES": ""}
    index = int(device.partition(":")[2])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return {"CUDA_VISIBLE_DEVICES": str(index)}
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[index].strip()}


def _may_have_several() -> bool:
    """Return False if the system's device files show at most one GPU; takes no time."""
    names = os.listdir("/dev") if os.path.isdir("/dev") else []
    numbered = sum(re.fullmatch(r"nvidia\d+", name) is not None for name in names)
    return numbered > 1 or "kfd" in names or "dxg" in names  # AMD's, and that of Windows


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _gpus(count: int) -> str:
    if not count:
        return "no GPU that PyTorch can use"
    return "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
