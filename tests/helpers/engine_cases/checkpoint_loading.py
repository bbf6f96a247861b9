"""Loads a checkpoint folder as the engine does, by default on a CPU in float32."""

from pathlib import Path

import torch
from transformers import PreTrainedModel

from eightfold.engine.inspection.architecture import Architecture, inspect_architecture
from eightfold.engine.loading.checkpoint import load_weights, read_config

CPU = torch.device("cpu")


def load_checkpoint(folder: Path, **options: object) -> tuple[PreTrainedModel, Architecture]:
    architecture = inspect_architecture(read_config(folder))
    options = {"device": CPU, "dtype": torch.float32, **options}
    return load_weights(folder, architecture, **options), architecture  # type: ignore[arg-type]
