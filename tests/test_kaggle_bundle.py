"""The bundle installs without an index, and the notebook runs from its inputs. About 50 s.

The fresh environment sees this one's packages less our own, so that torch is not installed again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import polars as pl
import pytest

from eightfold.solver import SolverError
from eightfold.solver import bundle as parts
from eightfold.solver.bundle import BundleConfig, left_out, make_bundle, read_freeze
from eightfold.solver.cli import main
from eightfold.solver.gateway import Row

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "aimo3.ipynb"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "out"
    assert main(["bundle", "--out", str(out), "--no-dependencies"]) == 0
    return out


def environment(folder: Path) -> Path:
    """A fresh interpreter with links to this one's packages, ours left out."""
    links = folder / "links"
    links.mkdir()
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            hidden = entry.name.startswith(("eightfold", "__editable__", "pip")) or (
                entry.suffix == ".pth"
            )
            if not hidden:
                (links / entry.name).symlink_to(entry)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (site,) = (folder / "venv").glob("lib/python3*/site-packages")
    (site / "packages.pth").write_text(f"{links}\n")
    return folder / "venv" / "bin" / "python"


def pip_install(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index"]
    # Neither the user's settings nor other folders of wheels may help.
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    clean["PIP_CONFIG_FILE"] = os.devnull
    return subprocess.run(
        [*command, *arguments], env=clean, cwd="/", capture_output=True, text=True, timeout=200
    )


@pytest.mark.parametrize("way", ["by name", "by lock"])
def test_installs_without_an_index(way: str, made: Path, tmp_path: Path) -> None:
    python = environment(tmp_path)
    what = {
        "by name": ["eightfold"],
        "by lock": ["--no-deps", "--require-hashes", "-r", str(made / "eightfold.lock")],
    }[way]
    run = pip_install(python, "--find-links", str(made), *what)
    assert run.returncode == 0, run.stderr
    look = "from eightfold.demo import model_path; print(model_path())"
    seen = subprocess.run([python, "-c", look], cwd="/", capture_output=True, text=True)
    assert Path(seen.stdout.strip()).is_relative_to(tmp_path / "venv"), seen.stderr


def test_a_changed_wheel_is_refused(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made, tmp_path / "copy")
    lock = copy / "eightfold.lock"
    head, _, digest = lock.read_text().strip().rpartition(":")
    lock.write_text(f"{head}:{digest[::-1]}\n")
    python = environment(tmp_path)
    options = ["--no-deps", "--require-hashes", "-r", str(lock)]
    run = pip_install(python, "--find-links", str(copy), *options)
    assert run.returncode != 0
    assert "HASH" in run.stderr.upper()


def test_what_is_in_it(made: Path, tmp_path: Path) -> None:
    names = {path.name for path in made.iterdir()}
    assert {"README.md", "eightfold.lock", "aimo3.ipynb"} < names
    assert (made / "aimo3.ipynb").read_bytes() == NOTEBOOK.read_bytes()
    small = make_bundle(BundleConfig(tmp_path / "small", model_less=True, dependencies=False))
    (large,) = made.glob("*.whl")
    assert small[0].stat().st_size < large.stat().st_size - 20 * 10**6
    with pytest.raises(SolverError, match="not an empty folder"):
        make_bundle(BundleConfig(made))


@pytest.mark.slow
def test_wheels_for_the_image(tmp_path: Path) -> None:
    try:
        quick = ("--no-deps", "--retries", "0", "--timeout", "10")
        parts.pip("download", *quick, "-d", str(tmp_path / "probe"), "truststore")
    except SolverError as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    wheels = make_bundle(BundleConfig(tmp_path / "out"))
    names = {parts.name_of(wheel) for wheel in wheels}
    assert {"eightfold", "transformers", "tokenizers", "accelerate"} <= names
    assert not names & {"torch", "triton", "numpy"}
    for wheel in wheels:
        assert wheel.name.endswith(("-none-any.whl", "x86_64.whl")), wheel
    lock = (tmp_path / "out" / "eightfold.lock").read_text()
    assert lock.count("--hash=sha256:") == len(wheels)
    # An image that has all this needs ours alone.
    freeze = tmp_path / "freeze.txt"
    freeze.write_text("\n".join(f"{parts.name_of(w)}=={parts.version_of(w)}" for w in wheels))
    kept = set(wheels) - set(left_out(tmp_path / "out", read_freeze(freeze)))
    assert {parts.name_of(wheel) for wheel in kept} == {"eightfold"}
    freeze.write_text("transformers==4.57.0\ntokenizers==0.22.0\n")
    old = left_out(tmp_path / "out", read_freeze(freeze))
    assert "transformers" not in {parts.name_of(wheel) for wheel in old}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--python", "3"],
        ["--python", "2.7"],
        ["--platform", "macosx_11_0_arm64"],
        ["--freeze", "none.txt"],
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_wrong_rehearsals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kaggle", "rehearse", str(tmp_path / "none.csv")]) == 2
    (tmp_path / "bad.csv").write_text("id,text\n1,2\n")
    assert main(["kaggle", "rehearse", str(tmp_path / "bad.csv")]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_the_notebook_runs(tmp_path: Path) -> None:
    client = pytest.importorskip("jupyter_client")
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any('"/' in text or "'/" in text for text in code), "no absolute paths"
    data = tmp_path / "input" / "competitions" / "anything"
    data.mkdir(parents=True)
    rows = [
        Row("a", "What is the value of $d(23326)$, where $d(n)$ is the number of divisors of $n$?"),
        Row("b", "What is the remainder when $5^{8985}$ is divided by 66?"),
    ]
    frame = pl.DataFrame({"id": [r.id for r in rows], "problem": [r.problem for r in rows]})
    frame.write_csv(data / "test.csv")
    variables = {**os.environ, "EIGHTFOLD_INPUT": str(tmp_path / "input")}
    variables.pop("KAGGLE_IS_COMPETITION_RERUN", None)
    manager, kernel = client.manager.start_new_kernel(
        kernel_name="python3", cwd=str(tmp_path), env=variables
    )
    try:
        for text in code:
            reply = kernel.execute_interactive(text, timeout=120, output_hook=lambda _: None)
            assert reply["content"]["status"] == "ok", reply["content"]
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)
    table = pl.read_parquet(tmp_path / "submission.parquet")
    assert dict(table.rows()) == {"a": 8, "b": pow(5, 8985, 66)}
    assert len((tmp_path / "kaggle.jsonl").read_text().splitlines()) == 2
