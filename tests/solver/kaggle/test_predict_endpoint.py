"""`serve`: the competition's server, the stand-in, and runs of fallbacks (1 s)."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import pytest
from helpers.solver_cases.kaggle_stubs import FALLBACK, StubSolver, fail_for_memory, start_session

from eightfold.solver import SolverError
from eightfold.solver.kaggle import predict_endpoint


def test_the_competitions_own_server_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "data" / "kaggle_evaluation"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("calls = []\n")
    (package / "aimo_3_inference_server.py").write_text(
        "from kaggle_evaluation import calls\n"
        "class AIMO3InferenceServer:\n"
        "    def __init__(self, f): calls.append(f.__name__)\n"
        "    def serve(self): calls.append('serve')\n"
        "    def run_local_gateway(self, paths): calls.append(paths[0])\n"
    )
    test = tmp_path / "data" / "test.csv"
    test.write_text("id,problem\n1,x\n")
    plain = list(sys.path)
    monkeypatch.setattr(sys, "path", list(plain))
    monkeypatch.delenv("KAGGLE_IS_COMPETITION_RERUN", raising=False)
    predict_endpoint.serve(tmp_path)
    monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "1")
    predict_endpoint.serve(tmp_path)
    (tmp_path / "empty").mkdir()
    predict_endpoint.serve(tmp_path / "empty")  # the package can already be imported
    seen = ["predict", str(test), "predict", "serve", "predict", "serve"]
    assert sys.modules["kaggle_evaluation"].calls == seen
    monkeypatch.setattr(sys, "path", plain)
    for name in ("kaggle_evaluation", "kaggle_evaluation.aimo_3_inference_server"):
        del sys.modules[name]
    with pytest.raises(SolverError, match="kaggle_evaluation"):
        predict_endpoint.serve(tmp_path / "empty")


def test_a_run_of_fallbacks_is_not_mistaken_for_a_working_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAGGLE_IS_COMPETITION_RERUN", raising=False)
    (tmp_path / "test.csv").write_text("id,problem\n1,x\n")
    start_session(StubSolver)
    predict_endpoint.serve(tmp_path)
    assert "1 of 1 | 1: " in capsys.readouterr().err, "the length of the test, not of a scored run"
    start_session(fail_for_memory)
    with pytest.raises(SolverError, match="fallback"):
        predict_endpoint.serve(tmp_path)
    assert pl.read_parquet(tmp_path / "submission.parquet").rows() == [("1", FALLBACK)]
