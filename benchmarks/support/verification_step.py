"""Times a step in which each sequence has several rows, as in speculative decoding."""

import torch
import transformers
from support.read_bandwidth import device_seconds

from eightfold.engine import EngineConfig
from eightfold.engine.execution.kv_cache import KVCache
from eightfold.engine.execution.runner_limits import RunnerLimits
from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.models.fused.fused_decoder import FusedDecoder
from eightfold.engine.scheduling.pages.page_pool import PageGroup
from eightfold.engine.startup.runner_factory import choose_fused
from eightfold.kernels.attention.attention_dispatch import PagedBatch

PAGE_SIZE = 64


def verification_seconds(
    model: transformers.PreTrainedModel, sequences: int, q_len: int, context: int
) -> float:
    """Return the seconds of a captured graph of the model and its head, without sampling.

    Args:
        model: a model of the Gemma 4 family.
        sequences: number of sequences.
        q_len: rows of each sequence.
        context: tokens of each sequence.
    """
    device = model.device
    architecture = choose_fused(
        inspect_architecture(model.config), EngineConfig(), kernels=True
    ).architecture
    assert architecture is not None
    rows, pages = sequences * q_len, -(-context // PAGE_SIZE)
    limits = RunnerLimits(max_running=rows, max_step_tokens=rows, max_context=pages * PAGE_SIZE)
    groups = [PageGroup(window, sequences * pages + 1) for window in architecture.windows]
    cache = KVCache(architecture, groups, PAGE_SIZE, device, model.dtype)
    decoder = FusedDecoder(model, architecture, limits, PAGE_SIZE)
    new = torch.arange(context - q_len, context, device=device, dtype=torch.int32)
    table = torch.arange(1, sequences * pages + 1, device=device, dtype=torch.int32)
    table = table.view(sequences, pages)
    slots = table[:, new // PAGE_SIZE] * PAGE_SIZE + new % PAGE_SIZE
    batch = PagedBatch(
        slot_mapping=slots.flatten().int(),
        page_table=table,
        first_pos=torch.zeros(sequences, dtype=torch.int32, device=device),
        seq_lens=torch.full((sequences,), context, dtype=torch.int32, device=device),
        query_starts=torch.zeros(1, dtype=torch.int32, device=device),
        num_decodes=sequences,
        q_len=q_len,
    )
    tokens = torch.arange(rows, device=device, dtype=torch.int32) + 10
    positions = new.repeat(sequences)
    batches = dict.fromkeys(architecture.windows, batch)
    with torch.inference_mode():
        decoder.logits(tokens, positions, batches, cache, None)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            decoder.logits(tokens, positions, batches, cache, None)
    return device_seconds(graph.replay, 10)
