"""The host between steps is timed over steps whose tokens are the recorded ones."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("triton")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("branches", [False, True])
def test_recorded_attempts_are_decoded_without_a_device(
    tmp_path: Path, branches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from support.speculation.host_steps import HostSteps

    passage = [(place * place) % 23 + 5 for place in range(31)]
    np.savez(
        tmp_path / "tokens.npz",
        p0_prompt=np.arange(9, dtype=np.uint32),
        p0_a0=np.array(passage * 20, dtype=np.uint32),
        p0_a1=np.array((passage[7:] + passage[:7]) * 20, dtype=np.uint32),
    )
    host = HostSteps(tmp_path, 0, context=130, branches=branches, drafts=3, steps=12, batch=2)
    found = host.measure(12)
    assert found["tokens_per_step"] > 3
    assert all(found[f"{part}_us"] > 0 for part in ("commit", "draft", "plan", "launch"))
    for number, record in enumerate(host._records):
        tokens = host.scheduler.sequences[number].tokens
        assert tokens == record[: len(tokens)]
