"""Choice of the layers whose prefill chunks flash-attn computes, on a stand-in for flash-attn."""

import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers.kernel_cases.flash_attn_stand_in import flash_attn_varlen_func, install_stand_in
from helpers.kernel_cases.kernel_devices import CUDA, DEVICE, DTYPE

from eightfold.kernels.attention.flash_attn import flash_attn_autotune, flash_attn_prefill
from eightfold.kernels.attention.flash_attn.flash_attn_prefill import AttentionSpec, PrefillLimits

HALF = torch.float16  # of the two dtypes that flash-attn takes, the one that the interpreter has
SLIDING = AttentionSpec(4, 2, 32, 24)
STEP = PrefillLimits(
    max_rows=32, max_sequences=4, page_size=16, dtype=HALF, device=torch.device(DEVICE)
)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    return install_stand_in(monkeypatch)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Milliseconds that the next measurements return: of the built-in kernel, then flash-attn."""
    times: list[float] = []
    monkeypatch.setattr(flash_attn_autotune, "device_supported", lambda device: True)
    monkeypatch.setattr(flash_attn_autotune, "median_device_ms", lambda call: times.pop(0))
    return times


@pytest.mark.parametrize(("own", "other"), [(2.0, 1.0), (1.0, 2.0), (1.0, 1.0)])
def test_the_faster_kernel_is_selected(
    stand_in: Any, clock: list[float], caplog: Any, own: float, other: float
) -> None:
    clock += [own, other]
    with caplog.at_level(logging.INFO, "eightfold"):
        chosen = flash_attn_autotune.autotune_prefill([SLIDING, SLIDING], STEP)
    assert chosen == ({SLIDING} if other < own else set())
    assert f"takes {own:.3f} ms with the built-in kernel and {other:.3f} ms" in caplog.text
    assert not clock, "each kind is measured once"


@pytest.mark.parametrize("wrong", ["scaled", "nan", "raises"])
def test_a_wrong_result_is_never_used(
    stand_in: Any, clock: list[float], caplog: Any, wrong: str
) -> None:
    def broken(*args: Any, **options: Any) -> torch.Tensor:
        if wrong == "raises":
            raise RuntimeError("no kernel image is available")
        return flash_attn_varlen_func(*args, **options) * (
            1.02 if wrong == "scaled" else float("nan")
        )

    stand_in.flash_attn_varlen_func = broken
    clock += [2.0, 1.0]
    assert flash_attn_autotune.autotune_prefill([SLIDING], STEP) == set()
    assert clock == [2.0, 1.0], "a wrong kernel is not timed"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "flash-attn is not used" in caplog.text


def test_each_kind_is_measured_by_itself(stand_in: Any, clock: list[float]) -> None:
    other = AttentionSpec(2, 2, 64, 40)
    clock += [2.0, 1.0, 1.0, 2.0]
    assert flash_attn_autotune.autotune_prefill(
        [SLIDING, AttentionSpec(4, 2, 32, 0), other], STEP
    ) == {SLIDING}


@pytest.mark.parametrize(
    ("spec", "changes", "reason"),
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
def test_unsupported_reasons(
    spec: AttentionSpec, changes: dict[str, Any], reason: str | None
) -> None:
    settings = {"max_rows": 32, "max_sequences": 4, "page_size": 16, "dtype": HALF}
    found = flash_attn_prefill.unsupported_reason(
        spec, PrefillLimits(**(settings | changes), device=torch.device("cpu"))
    )
    assert found is None if reason is None else reason in str(found)


def test_is_installed(stand_in: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    assert flash_attn_prefill.is_installed()
    stand_in.__version__ = "3.0.0"
    assert not flash_attn_prefill.is_installed()
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert not flash_attn_prefill.is_installed()
    assert not caplog.records, "a missing flash-attn needs no warning"
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    assert not flash_attn_prefill.is_installed()
    assert "flash-attn is not used" in caplog.text


def test_flash_attn_4_alone_is_not_flash_attn_2(
    monkeypatch: pytest.MonkeyPatch, caplog: Any, tmp_path: Path
) -> None:
    """It puts a package into the namespace, without a module of that name."""
    (tmp_path / "flash_attn" / "cute").mkdir(parents=True)
    (tmp_path / "flash_attn" / "cute" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    assert not flash_attn_prefill.is_installed()
    assert not caplog.records
    monkeypatch.delitem(sys.modules, "flash_attn")


def test_nothing_is_measured_without_flash_attn(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert flash_attn_autotune.autotune_prefill([SLIDING], STEP) == set()
    assert not flash_attn_prefill.device_supported(torch.device("cpu"))


@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
class TestRealFlashAttn:
    """Needs a GPU and flash-attn itself."""

    @pytest.fixture(autouse=True)
    def _require_flash_attn(self) -> None:
        pytest.importorskip("flash_attn")

    def test_autotune(self, caplog: Any) -> None:
        spec = AttentionSpec(32, 16, 256, 1024)
        limits = PrefillLimits(1024, 8, 64, DTYPE, torch.device("cuda"))
        with caplog.at_level(logging.INFO, "eightfold"):
            flash_attn_autotune.autotune_prefill([spec], limits)
        assert "flash-attn is not used" not in caplog.text
        assert "built-in kernel" in caplog.text
