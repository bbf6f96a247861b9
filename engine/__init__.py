"""Continuous batching over Hugging Face models; paused sequences keep their KV."""

from typing import TYPE_CHECKING, Any

from .engine_config import EngineConfig
from .events import Event
from .loading.file_preload import Preload, PreloadConfig
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
    "Preload",
    "PreloadConfig",
    "SamplingParams",
    "UnsupportedModelError",
]


def __getattr__(name: str) -> Any:
    # The engine imports torch and transformers, which takes seconds; nothing else here does.
    if name == "Engine":
        from .engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
