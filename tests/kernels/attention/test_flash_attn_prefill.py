"""Prefill attention through flash-attn, on a stand-in written from its documentation.

Takes a few seconds in Triton's interpreter.
"""

import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.engine_driver import greedy_reference, run_until_idle
from helpers.kernel_cases.flash_attn_stand_in import flash_attn_varlen_func, install_stand_in
from helpers.kernel_cases.kernel_devices import ATTENTION_LIMIT, CUDA, DEVICE, relative_error
from helpers.kernel_cases.prefill_cases import prefill_case

from eightfold.engine import Engine, EngineConfig, SamplingParams
from eightfold.kernels.attention.attention_dispatch import PagedBatch, attend
from eightfold.kernels.attention.flash_attn import (
    flash4_prefill,
    flash_attn_autotune,
    flash_attn_prefill,
)
from eightfold.kernels.attention.flash_attn.flash_attn_prefill import (
    AttentionSpec,
    PrefillLimits,
    flash_prefill,
)
from eightfold.kernels.attention.float64_reference import paged_prefill_reference


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    return install_stand_in(monkeypatch)


def fill_before_windows(case: dict[str, Any]) -> None:
    """Put large numbers before each window into its first page, like earlier tokens would."""
    page_size = case["key_cache"].shape[1]
    counts = case["query_starts"].diff().tolist()
    for s, (count, length) in enumerate(zip(counts, case["seq_lens"].tolist(), strict=True)):
        low = max(0, length - count - case["window"] + 1) % page_size
        for cache in (case["key_cache"], case["value_cache"]):
            cache[int(case["page_table"][s, 0]), :low] = 30.0


@pytest.mark.parametrize("page_size", [16, 64, 256])
@pytest.mark.parametrize("seed", range(4))
def test_matches_float64(stand_in: Any, page_size: int, seed: int) -> None:
    generator = random.Random(seed * 1000 + page_size)
    kv_heads = generator.choice([1, 2, 3])
    counts = [generator.randint(1, 70) for _ in range(generator.randint(1, 4))]
    seq_lens = [count + generator.choice([0, 5, 300, 700]) for count in counts]
    window = generator.choice([1, 24, 90, 256])
    if page_size == 256 and seed % 2:
        window = 0
    case = prefill_case(
        counts, seq_lens, kv_heads * generator.choice([1, 2, 4]), kv_heads,
        generator.choice([16, 40, 64]), window, page_size=page_size,
    )  # fmt: skip
    case.pop("one_copy")
    wanted = paged_prefill_reference(**case, scale=0.3)
    if page_size == 256 and window:
        fill_before_windows(case)
    out = torch.full_like(case["q"], float("nan"))
    assert flash_prefill(**case, scale=0.3, out=out) is out
    assert relative_error(out, wanted) < ATTENTION_LIMIT


@pytest.mark.parametrize("page_size", [16, 256])
def test_padding_rows_and_sequences(stand_in: Any, page_size: int) -> None:
    """The engine pads the page table with empty rows, and the queries with rows of no chunk."""
    case = prefill_case([9, 20], [40, 20], 4, 2, 32, 12, page_size=page_size)
    case.pop("one_copy")
    wanted = paged_prefill_reference(**case)
    if page_size == 256:
        fill_before_windows(case)
    pad = torch.nn.functional.pad
    case["query_starts"] = pad(case["query_starts"], (0, 3), value=29)
    for name in ("seq_lens", "first_pos"):
        case[name] = pad(case[name], (0, 3))
    case["page_table"] = pad(case["page_table"], (0, 0, 0, 3))
    case["q"] = pad(case["q"], (0, 0, 0, 0, 0, 3), value=float("nan"))
    out = torch.full_like(case["q"], float("nan"))
    flash_prefill(**case, out=out)
    assert relative_error(out[:29], wanted) < ATTENTION_LIMIT
    assert (out[29:] == 0).all()


@pytest.mark.parametrize("page_size", [16, 256])
def test_sequences_without_rows_need_no_gathered_keys(stand_in: Any, page_size: int) -> None:
    case = prefill_case([2], [40], 4, 2, 32, 12, page_size=page_size)
    case.pop("one_copy")
    wanted = paged_prefill_reference(**case)
    if page_size == 256:
        fill_before_windows(case)
    case["query_starts"] = torch.nn.functional.pad(case["query_starts"], (6, 0))
    for name in ("seq_lens", "first_pos", "page_table"):
        case[name] = case[name].repeat_interleave(7, 0)
    out = torch.full_like(case["q"], float("nan"))
    flash_prefill(**case, out=out)
    assert relative_error(out, wanted) < ATTENTION_LIMIT


def test_full_attention_needs_large_pages(stand_in: Any) -> None:
    case = prefill_case([5], [5], 4, 2, 32)
    case.pop("one_copy")
    with pytest.raises(ValueError, match="pages have 16 tokens"):
        flash_prefill(**case, out=case["q"].clone())


def test_a_step_uses_flash_attn_for_the_selected_kinds(stand_in: Any) -> None:
    """The step has one decode row and two chunks."""
    calls = []

    def counted(*args: Any, **options: Any) -> torch.Tensor:
        calls.append(options["max_seqlen_q"])
        return flash_attn_varlen_func(*args, **options)

    stand_in.flash_attn_varlen_func = counted
    case = prefill_case([1, 8, 7], [50, 30, 7], 4, 2, 32, 24)
    wanted = paged_prefill_reference(**case)
    caches = case["key_cache"], case["value_cache"]
    for specs, sinks, expected in (
        ({AttentionSpec(4, 2, 32, 24)}, None, 1),
        ({AttentionSpec(4, 2, 32, 0), AttentionSpec(8, 2, 32, 24)}, None, 0),
        ({AttentionSpec(4, 2, 32, 24)}, torch.full((4,), -1e4, device=DEVICE), 0),
    ):
        batch = PagedBatch(
            slot_mapping=torch.zeros(16, dtype=torch.int32, device=DEVICE),
            page_table=case["page_table"],
            first_pos=case["first_pos"],
            seq_lens=case["seq_lens"],
            query_starts=case["query_starts"][1:] - 1,
            num_decodes=1,
            flash_attn_specs=frozenset(specs),
        )
        out = torch.full_like(case["q"], float("nan"))
        workspace = torch.empty(1 << 16, device=DEVICE)
        attend(case["q"], *caches, batch, out, window=24, sinks=sinks, workspace=workspace)
        assert relative_error(out, wanted) < ATTENTION_LIMIT
        assert len(calls) == expected
        calls.clear()


@pytest.fixture
def flash4(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Let flash-attn 4 be a stand-in with the arguments that its version 4.0.0b36 takes."""
    calls: list[dict[str, Any]] = []

    def attend4(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, cu_seqlens_q: torch.Tensor,
        max_seqlen_q: int, max_seqlen_k: int, seqused_k: torch.Tensor, page_table: torch.Tensor,
        softmax_scale: float, causal: bool, window_size: tuple[int | None, int | None],
        learnable_sink: torch.Tensor | None, num_splits: int,
    ) -> tuple[torch.Tensor, None]:  # fmt: skip
        assert causal
        assert num_splits == 1
        assert window_size[1] in (0, None)
        assert max_seqlen_k >= int(seqused_k.max())
        assert max_seqlen_q >= int(cu_seqlens_q.diff().max())
        calls.append({"window": window_size, "sinks": learnable_sink})
        rows, out = int(cu_seqlens_q[-1]), torch.full_like(q, float("nan"))
        out[:rows] = paged_prefill_reference(
            q[:rows], k, v, page_table, cu_seqlens_q, seqused_k, scale=softmax_scale,
            sinks=learnable_sink, window=0 if window_size[0] is None else window_size[0] + 1,
        )  # fmt: skip
        return out, None

    interface: Any = ModuleType("flash_attn.cute.interface")
    interface.flash_attn_varlen_func = attend4
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    monkeypatch.setitem(sys.modules, "flash_attn.cute", ModuleType("flash_attn.cute"))
    monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", interface)
    monkeypatch.setattr(flash_attn_prefill, "flash4_supports", lambda device: True)
    flash4_prefill.flash4_installed.cache_clear()
    assert flash4_prefill.flash4_installed()
    yield calls
    flash4_prefill.flash4_installed.cache_clear()


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("window", [0, 24])
def test_flash_attn_4_takes_pages_windows_and_sinks(
    flash4: list[dict[str, Any]], window: int, sinks: bool
) -> None:
    """The engine pads the page table with empty rows, and the queries with rows of no chunk."""
    case = prefill_case([9, 20], [40, 20], 4, 2, 32, window, page_size=16)
    case.pop("one_copy")
    case["sinks"] = torch.randn(4, device=DEVICE) if sinks else None
    wanted = paged_prefill_reference(**case)
    pad = torch.nn.functional.pad
    case["query_starts"] = pad(case["query_starts"], (0, 3), value=29)
    case["seq_lens"] = pad(case["seq_lens"], (0, 3))
    if case.get("first_pos") is not None:
        case["first_pos"] = pad(case["first_pos"], (0, 3))
    case["page_table"] = pad(case["page_table"], (0, 0, 0, 3))
    case["q"] = pad(case["q"], (0, 0, 0, 0, 0, 3), value=1.0)
    out = torch.full_like(case["q"], float("nan"))
    assert flash_prefill(**case, out=out) is out
    assert relative_error(out[:29], wanted) < ATTENTION_LIMIT
    assert (out[29:] == 0).all()
    assert [call["window"] for call in flash4] == [(window - 1, 0) if window else (None, None)]
    limits = PrefillLimits(32, 4, 16, torch.bfloat16, torch.device(DEVICE))
    spec = AttentionSpec(4, 2, 32, window, sinks)
    assert flash_attn_prefill.unsupported_reason(spec, limits) is None
    half = replace(limits, dtype=torch.float16)
    assert (flash_attn_prefill.unsupported_reason(spec, half) is None) is not sinks


@pytest.mark.skipif(CUDA, reason="needs the interpreter, in which kernels take CPU tensors")
@pytest.mark.parametrize("page_size", [16, 256])
def test_engine_with_flash_attn(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, page_size: int
) -> None:
    """transformers' modules over the GPU kernels draw the same tokens from chunked prompts."""
    used = []

    def counted(*args: Any, **options: Any) -> torch.Tensor:
        used.append(options["window_size"])
        return flash_attn_varlen_func(*args, **options)

    def select_supported(
        specs: list[AttentionSpec], limits: PrefillLimits
    ) -> frozenset[AttentionSpec]:
        # Of the two dtypes that flash-attn takes, float16 is the one that the interpreter has.
        half = replace(limits, dtype=torch.float16)
        return frozenset(
            spec for spec in specs if flash_attn_prefill.unsupported_reason(spec, half) is None
        )

    stand_in.flash_attn_varlen_func = counted
    monkeypatch.setattr(flash_attn_autotune, "autotune_prefill", select_supported)
    monkeypatch.setattr("eightfold.engine.engine.uses_kernels", lambda *_: True)
    prompts = [[(3 + 5 * i * n) % 100 + 3 for i in range(n)] for n in (3, 29, 11)]
    wanted = [greedy_reference(tiny_models.build("gemma4_e2b"), prompt, 3) for prompt in prompts]
    config = EngineConfig(
        device="cpu", fused=False, max_step_tokens=16, max_running=4, max_context=512,
        page_size=page_size,
    )  # fmt: skip
    engine = Engine(tiny_models.build("gemma4_e2b").to("cpu"), config)
    settings = SamplingParams(temperature=0, max_new_tokens=3, stop_token_ids=())
    seqs = [engine.submit(prompt, settings) for prompt in prompts]
    drawn = run_until_idle(engine)
    assert [drawn[seq] for seq in seqs] == wanted
    assert {left >= 0 for left, _ in used} == ({True} if page_size == 16 else {True, False})


@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "window"),
    [(64, 8, 64, 0), (64, 8, 64, 128), (32, 8, 128, 0), (32, 16, 256, 1024)],
)
def test_real_flash_attn_4(
    heads: int, kv_heads: int, head_dim: int, window: int, sinks: bool
) -> None:
    pytest.importorskip("flash_attn.cute.interface")
    case = prefill_case(
        [300, 2, 77], [1500, 900, 77], heads, kv_heads, head_dim, window, page_size=64
    )
    case.pop("one_copy")
    case["sinks"] = torch.randn(heads, device=DEVICE).bfloat16() if sinks else None
    wanted = paged_prefill_reference(**case)
    out = torch.full_like(case["q"], float("nan"))
    flash_prefill(**case, out=out)
    assert relative_error(out, wanted) < ATTENTION_LIMIT


@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
class TestRealFlashAttn:
    """Needs a GPU and flash-attn itself."""

    @pytest.fixture(autouse=True)
    def _require_flash_attn(self) -> None:
        pytest.importorskip("flash_attn")

    @pytest.mark.parametrize(("page_size", "window"), [(64, 1024), (256, 1024), (256, 0)])
    def test_matches_float64(self, page_size: int, window: int) -> None:
        case = prefill_case([300, 2, 77], [1500, 900, 77], 32, 16, 256, window, page_size=page_size)
        case.pop("one_copy")
        wanted = paged_prefill_reference(**case)
        if page_size == 256 and window:
            fill_before_windows(case)
        out = torch.full_like(case["q"], float("nan"))
        flash_prefill(**case, out=out)
        assert relative_error(out, wanted) < ATTENTION_LIMIT
