"""Continuous batching over Hugging Face models, with pauses that keep their KV."""

from typing import TYPE_CHECKING, Any

from .engine_config import EngineConfig
from .events import Event
from .model_errors import CheckpointError, ModelError, UnsupportedModelError
from .sampling_params import SamplingParams

if TYPE_CHECKING:
    from .engine import Engine

__all__ = [
    "CheckpointError",
    "Engine",
    "EngineConfig",
    "Event",
    "ModelError",
    "SamplingParams",
    "UnsupportedModelError",
]


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import; settings, errors and events do not need them.
    if name == "Engine":
        from .engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
