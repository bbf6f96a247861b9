"""Loads a checkpoint folder as the engine does, on a CPU in float32 unless asked."""

from pathlib import Path

import torch
from transformers import PreTrainedModel

from eightfold.engine.inspection.architecture import Architecture, inspect
from eightfold.engine.loading.checkpoint import load_weights, read_config

CPU = torch.device("cpu")


def opened(folder: Path, **options: object) -> tuple[PreTrainedModel, Architecture]:
    architecture = inspect(read_config(folder))
    options = {"device": CPU, "dtype": torch.float32, **options}
    return load_weights(folder, architecture, **options), architecture  # type: ignore[arg-type]
