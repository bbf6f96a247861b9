"""A drafter in the shapes of gemma-4-31B-it-assistant with random weights: what drafting costs."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers

from eightfold.engine import Engine
from eightfold.engine.execution.gpu_runner import GpuRunner
from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.inspection.kv_geometry import one_copy_layers
from eightfold.engine.speculation.drafter import Drafter
from eightfold.engine.speculation.mtp.assistant_checkpoint import read_assistant
from eightfold.engine.speculation.mtp.kernel_assistant import KernelAssistantDrafter


def assistant_config(target: Any) -> Any:
    """Return the configuration of the 31B's drafter: four layers of width 1,024."""
    text = transformers.Gemma4TextConfig(
        vocab_size=target.vocab_size, hidden_size=1024, intermediate_size=8192,
        num_hidden_layers=4, num_attention_heads=32, num_key_value_heads=16, head_dim=256,
        num_global_key_value_heads=4, global_head_dim=512, attention_k_eq_v=True,
        sliding_window=target.sliding_window, max_position_embeddings=262144,
        hidden_size_per_layer_input=0, vocab_size_per_layer_input=0,
        layer_types=["sliding_attention"] * 3 + ["full_attention"],
    )  # fmt: skip
    return transformers.Gemma4AssistantConfig(
        text_config=text, backbone_hidden_size=target.hidden_size, use_ordered_embeddings=False
    )


def random_drafter(engine: Engine, model: Any, most: int = 7) -> Drafter:
    """Return a drafter with random weights for an engine that runs the fused decoder."""
    torch.manual_seed(1)
    with torch.device("cuda"):
        drafter = transformers.Gemma4AssistantForCausalLM(assistant_config(model.config))
    architecture = inspect_architecture(model.config)
    layers = one_copy_layers(model.config.to_dict(), architecture.layers)
    runner = engine._runner
    assert layers is not None
    assert isinstance(runner, GpuRunner)
    with TemporaryDirectory() as folder:
        drafter.bfloat16().save_pretrained(folder)
        fused = replace(architecture, layers=layers)
        checkpoint = read_assistant(Path(folder), fused)
        loaded = checkpoint.load(runner.device, model.dtype)
        return KernelAssistantDrafter(loaded, runner, fused, most)
