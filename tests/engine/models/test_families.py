"""Every family of the fused decoder against transformers, and a family added by its row.

The decoder is driven without an engine: a prompt longer than the window in one chunk, then single
tokens. In Triton's interpreter, in float32, all logits must be transformers'.
test_fused_logits.py compares them on a GPU, through the engine.
"""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from helpers.engine_cases import family_configs
from helpers.engine_cases.config_variants import LAYERS
from helpers.kernel_cases.kernel_devices import CUDA, relative_error
from transformers import PretrainedConfig, PreTrainedModel

from eightfold.engine import EngineConfig
from eightfold.engine.execution.kv_cache import KVCache
from eightfold.engine.execution.runner_limits import RunnerLimits
from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.inspection.families import FAMILIES, Family
from eightfold.engine.models.fused import decode_tails
from eightfold.engine.models.fused.fused_decoder import FusedDecoder
from eightfold.engine.scheduling.pages.page_pool import PageGroup
from eightfold.engine.startup.runner_factory import choose_fused
from eightfold.kernels.attention.attention_dispatch import PagedBatch
from eightfold.kernels.layers.chain_layers import ChainLinear, linear_chain_reference
from eightfold.kernels.layers.linear_chain import COUNTERS

pytestmark = pytest.mark.skipif(CUDA, reason="the interpreter takes tensors of a CPU only")

PAGE, PROMPT, NEW = 16, 10, 2
CONTRIBUTING = Path(__file__).parents[3] / "CONTRIBUTING.md"


def batch_of(start: int, count: int) -> PagedBatch:
    """Return a step of one sequence: a chunk, or one token."""
    single = count == 1 and start > 0
    return PagedBatch(
        slot_mapping=torch.arange(PAGE + start, PAGE + start + count, dtype=torch.int32),
        page_table=torch.tensor([[1]], dtype=torch.int32),
        first_pos=torch.tensor([0], dtype=torch.int32),
        seq_lens=torch.tensor([start + count], dtype=torch.int32),
        query_starts=torch.tensor([0] if single else [0, count], dtype=torch.int32),
        num_decodes=int(single),
    )


def logits_of(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """Return the fused decoder's logits of a prompt's last token and of the tokens after it."""
    choice = choose_fused(inspect_architecture(model.config), EngineConfig(), kernels=True)
    assert choice.architecture is not None, choice.reason
    limits = RunnerLimits(max_running=1, max_step_tokens=PAGE, max_context=PAGE)
    decoder = FusedDecoder(model, choice.architecture, limits, PAGE)
    groups = [PageGroup(window, 2) for window in choice.architecture.windows]
    cache = KVCache(choice.architecture, groups, PAGE, torch.device("cpu"), torch.float32)
    found, start = [], 0
    with torch.inference_mode():
        for count in (PROMPT, *[1] * NEW):
            batches = dict.fromkeys(choice.architecture.windows, batch_of(start, count))
            ids = torch.tensor(tokens[start : start + count], dtype=torch.int32)
            positions = torch.arange(start, start + count, dtype=torch.int32)
            last = torch.tensor([count - 1], dtype=torch.int32) if start == 0 else None
            out = decoder.logits(ids, positions, batches, cache, last)
            cap = decoder.softcap
            found.append((cap * torch.tanh(out / cap) if cap else out).clone())
            start += count
    return torch.cat(found)


def check(config: PretrainedConfig) -> None:
    """Compare the fused decoder's logits with transformers'."""
    torch.manual_seed(0)
    model = family_configs.build(config)
    reference = copy.deepcopy(model)
    tokens = torch.randint(3, config.vocab_size, (PROMPT + NEW,)).tolist()
    found = logits_of(model, tokens)
    with torch.inference_mode():
        wanted = reference(torch.tensor([tokens])).logits[0, PROMPT - 1 :]
    assert relative_error(found, wanted) < 1e-5
    assert torch.equal(found.argmax(1), wanted.argmax(1))


def test_each_family_has_a_configuration() -> None:
    assert {make().model_type for make in family_configs.CONFIGS.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", family_configs.CONFIGS)
def test_logits_are_transformers(name: str) -> None:
    check(family_configs.CONFIGS[name]())


@pytest.mark.parametrize("name", ["llama_biases", "gemma3_text", "olmo2", "gemma4_text_e2b"])
def test_the_chains_of_few_rows_compute_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their kernel needs Hopper; its reference stands in for it."""
    calls: list[int] = []

    def chain(
        x: torch.Tensor,
        residual: torch.Tensor,
        linears: tuple[ChainLinear, ...],
        normed: torch.Tensor,
        outs: list[torch.Tensor | None],
        counters: torch.Tensor,
        *,
        squares: torch.Tensor,
        pdl: bool,
        **options: float,
    ) -> None:
        calls.append(len(linears))
        assert counters.numel() == COUNTERS
        assert not counters.any()
        results = linear_chain_reference(x, residual, linears, **options)  # type: ignore[arg-type]
        for mine, result in zip((residual, normed, outs[-1]), results, strict=True):
            if mine is not None and result is not None:
                mine.copy_(result)

    monkeypatch.setattr(decode_tails, "linear_chain", chain)
    monkeypatch.setattr(decode_tails, "linear_chain_fits", lambda *_: True)
    monkeypatch.setattr(
        decode_tails.DecodeTails,
        "_stored",
        lambda self, norm: None if norm is None else norm - self._norm_offset,
    )
    check(family_configs.CONFIGS[name]())
    assert max(calls) == 4


def test_a_family_is_added_by_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row is the one that CONTRIBUTING.md shows."""
    make: Callable[[], PretrainedConfig] = lambda: transformers.GlmConfig(  # noqa: E731
        **LAYERS, head_dim=16, attention_bias=True
    )
    choice = choose_fused(inspect_architecture(make()), EngineConfig(), kernels=True)
    assert choice.reason == "the fused decoder has no row for glm"
    shown = re.search(r'^"glm": (Family\(.*\)),$', CONTRIBUTING.read_text(), re.M)
    assert shown is not None
    monkeypatch.setitem(FAMILIES, "glm", eval(shown[1], {"Family": Family}))
    check(make())
