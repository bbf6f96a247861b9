"""Chunks' attention through flash-attn, and the choice of it, on a stand-in written from its
documentation. A few seconds in Triton's interpreter."""

import logging
import random
import sys
from dataclasses import replace
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers import tiny_models
from helpers.engine_driver import drive, generate
from helpers.kernel_cases.kernel_devices import ATTENTION_LIMIT, CUDA, DEVICE, DTYPE, relative
from helpers.kernel_cases.prefill_cases import prefill_case

from eightfold.engine import Engine, EngineConfig, SamplingParams
from eightfold.kernels.attention.attention_dispatch import PagedBatch, attend
from eightfold.kernels.attention.flash_attn import flash_attn_autotune, flash_attn_prefill
from eightfold.kernels.attention.flash_attn.flash_attn_prefill import (
    AttentionSpec,
    PrefillLimits,
    flash_prefill,
)
from eightfold.kernels.attention.float64_reference import paged_prefill_reference

HALF = torch.float16  # of the two types that flash-attn takes, the one the interpreter has


def varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    softmax_scale: float,
    causal: bool,
    window_size: tuple[int, int],
    block_table: torch.Tensor | None,
) -> torch.Tensor:
    """flash-attn's ``flash_attn_varlen_func`` as its documentation has it; NaN in rows of no
    sequence, and through values of NaN even where their weight is 0."""
    assert all(t.dtype == torch.int32 and t.is_contiguous() for t in (cu_seqlens_q, cu_seqlens_k))
    assert block_table is None or k.shape[1] % 256 == 0
    assert max_seqlen_q > 1
    out = torch.full_like(q, float("nan"))
    group = q.shape[1] // k.shape[-2]
    for s, (begin, end) in enumerate(pairwise(cu_seqlens_q)):
        low, high = int(cu_seqlens_k[s]), int(cu_seqlens_k[s + 1])
        rows, count = int(end - begin), high - low
        assert rows <= max_seqlen_q
        assert count <= max_seqlen_k
        at = torch.arange(low, high, device=q.device)
        keys, values = k, v
        if block_table is not None:
            at -= low
            at = block_table[s].long()[at // k.shape[1]] * k.shape[1] + at % k.shape[1]
            keys, values = k.flatten(0, 1), v.flatten(0, 1)
        keys, values = (t[at].double().repeat_interleave(group, 1) for t in (keys, values))
        place = torch.arange(rows, device=q.device)[:, None] + count - rows
        column = torch.arange(count, device=q.device)[None, :]
        seen = torch.ones(rows, count, dtype=torch.bool, device=q.device)
        left, right = window_size[0], 0 if causal else window_size[1]
        if left >= 0:
            seen &= column >= place - left
        if right >= 0:
            seen &= column <= place + right
        scores = torch.einsum("rhd,khd->hrk", q[begin:end].double(), keys) * softmax_scale
        weights = scores.masked_fill(~seen, float("-inf")).softmax(2)
        weights = weights.masked_fill(~seen.any(1)[None, :, None], 0.0)
        out[begin:end] = torch.einsum("hrk,khd->rhd", weights, values).to(q.dtype)
    return out


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that ``import flash_attn`` gives."""
    module: Any = ModuleType("flash_attn")
    module.__version__ = "2.8.3"
    module.flash_attn_varlen_func = varlen
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    return module


def fill_before_windows(case: dict[str, Any]) -> None:
    """Large numbers in the first page before each window: an earlier part of the sequence."""
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
    assert relative(out, wanted) < ATTENTION_LIMIT


@pytest.mark.parametrize("page_size", [16, 256])
def test_rows_and_sequences_of_nobody(stand_in: Any, page_size: int) -> None:
    """Empty page_table rows and padded rows, as the engine's tables have them."""
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
    assert relative(out[:29], wanted) < ATTENTION_LIMIT
    assert (out[29:] == 0).all()


@pytest.mark.parametrize("page_size", [16, 256])
def test_sequences_without_rows_take_no_room(stand_in: Any, page_size: int) -> None:
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
    assert relative(out, wanted) < ATTENTION_LIMIT


def test_full_layers_need_large_pages(stand_in: Any) -> None:
    case = prefill_case([5], [5], 4, 2, 32)
    case.pop("one_copy")
    with pytest.raises(ValueError, match="pages of 16 tokens hold"):
        flash_prefill(**case, out=case["q"].clone())


def test_steps_use_it_for_the_kinds_that_were_chosen(stand_in: Any) -> None:
    """A step of a single token and two chunks."""
    calls = []

    def counted(*args: Any, **options: Any) -> torch.Tensor:
        calls.append(options["max_seqlen_q"])
        return varlen(*args, **options)

    stand_in.flash_attn_varlen_func = counted
    case = prefill_case([1, 8, 7], [50, 30, 7], 4, 2, 32, 24)
    wanted = paged_prefill_reference(**case)
    caches = case["key_cache"], case["value_cache"]
    for kinds, sinks, expected in (
        ({AttentionSpec(4, 2, 32, 24)}, None, 1),
        ({AttentionSpec(4, 2, 32, 0), AttentionSpec(8, 2, 32, 24)}, None, 0),
        ({AttentionSpec(4, 2, 32, 24)}, torch.full((4,), -1e4, device=DEVICE), 0),
    ):
        batch = PagedBatch(
            slot_mapping=torch.zeros(16, dtype=torch.int32, device=DEVICE), page_table=case["page_table"],
            first_pos=case["first_pos"], seq_lens=case["seq_lens"], query_starts=case["query_starts"][1:] - 1,
            num_decodes=1, flash_attn_specs=frozenset(kinds),
        )  # fmt: skip
        out = torch.full_like(case["q"], float("nan"))
        workspace = torch.empty(1 << 16, device=DEVICE)
        attend(case["q"], *caches, batch, out, window=24, sinks=sinks, workspace=workspace)
        assert relative(out, wanted) < ATTENTION_LIMIT
        assert len(calls) == expected
        calls.clear()


@pytest.mark.skipif(CUDA, reason="kernels take a CPU's tensors in the interpreter alone")
@pytest.mark.parametrize("page_size", [16, 256])
def test_engine_steps(stand_in: Any, monkeypatch: pytest.MonkeyPatch, page_size: int) -> None:
    """transformers' modules over the GPU kernels: several prompts, cut into chunks."""
    used = []

    def counted(*args: Any, **options: Any) -> torch.Tensor:
        used.append(options["window_size"])
        return varlen(*args, **options)

    def all_that_fit(kinds: list[AttentionSpec], chunks: PrefillLimits) -> frozenset[AttentionSpec]:
        halves = replace(chunks, dtype=HALF)
        return frozenset(
            kind for kind in kinds if flash_attn_prefill.unsupported_reason(kind, halves) is None
        )

    stand_in.flash_attn_varlen_func = counted
    monkeypatch.setattr(flash_attn_autotune, "autotune_prefill", all_that_fit)
    monkeypatch.setattr("eightfold.engine.engine.by_kernels", lambda *_: True)
    prompts = [[(3 + 5 * i * n) % 100 + 3 for i in range(n)] for n in (3, 45, 19)]
    wanted = [generate(tiny_models.build("gemma4_e2b"), prompt, 3) for prompt in prompts]
    config = EngineConfig(
        device="cpu", fused=False, max_step_tokens=24, max_running=4, max_context=512,
        page_size=page_size,
    )  # fmt: skip
    engine = Engine(tiny_models.build("gemma4_e2b").to("cpu"), config)
    settings = SamplingParams(temperature=0, max_new_tokens=3, stop_token_ids=())
    seqs = [engine.submit(prompt, settings) for prompt in prompts]
    drawn = drive(engine)
    assert [drawn[seq] for seq in seqs] == wanted
    assert {left >= 0 for left, _ in used} == ({True} if page_size == 16 else {True, False})


# ---- the choice

SLIDING = AttentionSpec(4, 2, 32, 24)
STEP = PrefillLimits(
    max_rows=32, max_sequences=4, page_size=16, dtype=HALF, device=torch.device(DEVICE)
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Milliseconds that the next measurements give: ours first, then flash-attn's."""
    times: list[float] = []
    monkeypatch.setattr(flash_attn_autotune, "device_supported", lambda device: True)
    monkeypatch.setattr(flash_attn_autotune, "median_device_ms", lambda call: times.pop(0))
    return times


@pytest.mark.parametrize(("own", "other"), [(2.0, 1.0), (1.0, 2.0), (1.0, 1.0)])
def test_the_faster_one_is_taken(
    stand_in: Any, clock: list[float], caplog: Any, own: float, other: float
) -> None:
    clock += [own, other]
    with caplog.at_level(logging.INFO, "eightfold"):
        chosen = flash_attn_autotune.autotune_prefill([SLIDING, SLIDING], STEP)
    assert chosen == ({SLIDING} if other < own else set())
    assert f"our kernel {own:.3f} ms, flash-attn {other:.3f} ms" in caplog.text
    assert not clock, "a kind is measured once"


@pytest.mark.parametrize("wrong", ["scaled", "nan", "raises"])
def test_a_wrong_one_is_never_taken(
    stand_in: Any, clock: list[float], caplog: Any, wrong: str
) -> None:
    def broken(*args: Any, **options: Any) -> torch.Tensor:
        if wrong == "raises":
            raise RuntimeError("no kernel image is available")
        return varlen(*args, **options) * (1.02 if wrong == "scaled" else float("nan"))

    stand_in.flash_attn_varlen_func = broken
    clock += [2.0, 1.0]
    assert flash_attn_autotune.autotune_prefill([SLIDING], STEP) == set()
    assert clock == [2.0, 1.0], "it is not timed"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "flash-attn is not used" in caplog.text


def test_kinds_are_judged_one_by_one(stand_in: Any, clock: list[float]) -> None:
    other = AttentionSpec(2, 2, 64, 40)
    clock += [2.0, 1.0, 1.0, 2.0]
    assert flash_attn_autotune.autotune_prefill(
        [SLIDING, AttentionSpec(4, 2, 32, 0), other], STEP
    ) == {SLIDING}


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        (SLIDING, {"dtype": torch.float32}, "does not take torch.float32"),
        (AttentionSpec(4, 2, 512, 24), {}, "up to 256"),
        (AttentionSpec(4, 2, 36, 24), {}, "multiples of 8"),
        (AttentionSpec(4, 2, 32, 0), {"page_size": 64}, "not 64"),
        (
            AttentionSpec(32, 16, 256, 1024),
            {"max_rows": 512, "max_sequences": 64},
            "would take 1031 MiB",
        ),
        (AttentionSpec(32, 16, 256, 1024), {"max_rows": 512, "max_sequences": 8}, None),
        (AttentionSpec(4, 2, 32, 0), {"page_size": 512}, None),
    ],
)
def test_what_does_not_fit(kind: AttentionSpec, changes: dict[str, Any], why: str | None) -> None:
    settings = {"max_rows": 32, "max_sequences": 4, "page_size": 16, "dtype": HALF}
    found = flash_attn_prefill.unsupported_reason(
        kind, PrefillLimits(**(settings | changes), device=torch.device("cpu"))
    )
    assert found is None if why is None else why in str(found)


def test_what_is_installed(stand_in: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    assert flash_attn_prefill.is_installed()
    stand_in.__version__ = "3.0.0"
    assert not flash_attn_prefill.is_installed()
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert not flash_attn_prefill.is_installed()
    assert not caplog.records, "what is not there is nothing to warn of"
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    assert not flash_attn_prefill.is_installed()
    assert "flash-attn is not used" in caplog.text


def test_nothing_is_measured_without_it(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert flash_attn_autotune.autotune_prefill([SLIDING], STEP) == set()
    assert not flash_attn_prefill.device_supported(torch.device("cpu"))


@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
class TestRealOne:
    """On a GPU where flash-attn is is_installed."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
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
        assert relative(out, wanted) < ATTENTION_LIMIT

    def test_choice(self, caplog: Any) -> None:
        kind = AttentionSpec(32, 16, 256, 1024)
        step = PrefillLimits(1024, 8, 64, DTYPE, torch.device("cuda"))
        with caplog.at_level(logging.INFO, "eightfold"):
            flash_attn_autotune.autotune_prefill([kind], step)
        assert "flash-attn is not used" not in caplog.text
        assert "our kernel" in caplog.text
