"""A bundle can be installed without an index. About 40 s.

The new environment sees the packages of this one, except ours and those that the bundle holds, so
that torch is not installed again.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Set
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from eightfold.solver import SolverError
from eightfold.solver.cli import main
from eightfold.solver.kaggle import offline_bundle
from eightfold.solver.kaggle.image_packages import (
    NEVER_FETCHED,
    PRESENT,
    TORCH_REQUIRES,
    read_freeze,
    unneeded_wheels,
    wheel_name,
    wheel_requirements,
    wheel_version,
)
from eightfold.solver.kaggle.offline_bundle import BundleConfig, download, make_bundle, pip

ROOT = Path(__file__).resolve().parents[3]
NOTEBOOK = ROOT / "notebooks" / "aimo3.ipynb"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "out"
    assert main(["bundle", "--out", str(out), "--no-dependencies"]) == 0
    return out


def environment(folder: Path, lacks: Set[str] = frozenset()) -> Path:
    """Return a new interpreter with links to this one's packages, except ours and those named."""
    links = folder / "links"
    links.mkdir()
    files = [importlib.metadata.files(name) or [] for name in lacks]
    gone = {file.parts[0] for package in files for file in package}
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            hidden = entry.name.startswith(("eightfold", "__editable__", "pip")) or (
                entry.suffix == ".pth"
            )
            if not hidden and entry.name not in gone:
                (links / entry.name).symlink_to(entry)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (site,) = (folder / "venv").glob("lib/python3*/site-packages")
    (site / "packages.pth").write_text(f"{links}\n")
    return folder / "venv" / "bin" / "python"


def pip_install(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index"]
    # Neither the user's settings nor other folders of wheels may be used.
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


def test_a_bundle_holds_the_notebook_and_maybe_the_model(made: Path, tmp_path: Path) -> None:
    names = {path.name for path in made.iterdir()}
    assert {"README.md", "eightfold.lock", "aimo3.ipynb", "kernel-metadata.json"} < names
    assert (made / "aimo3.ipynb").read_bytes() == NOTEBOOK.read_bytes()
    small = make_bundle(BundleConfig(tmp_path / "small", model_less=True, dependencies=False))
    (large,) = made.glob("*.whl")
    assert small[0].stat().st_size < large.stat().st_size - 20 * 10**6
    with pytest.raises(SolverError, match="not an empty folder"):
        make_bundle(BundleConfig(made))


def test_a_bundle_says_all_that_kaggle_asks_for(made: Path) -> None:
    kernel = json.loads((made / "kernel-metadata.json").read_text())
    readme = (made / "README.md").read_text()
    owner, slug = kernel["id"].split("/")
    assert slug == kernel["title"].lower().replace(" ", "-"), "Kaggle makes the slug of the title"
    assert (made / kernel["code_file"]).is_file()
    assert (kernel["kernel_type"], kernel["enable_internet"]) == ("notebook", "false")
    (dataset,) = kernel["dataset_sources"]
    assert dataset.split("/")[0] == owner
    assert (made / "kernel-metadata.json").read_text().count(owner) == 2
    assert f"replace `{owner}` with your user name, twice" in readme
    # What `kaggle datasets init` leaves to the user, between init and create.
    steps = [
        readme.index(word) for word in ("datasets init", "INSERT_TITLE_HERE", "datasets create")
    ]
    assert steps == sorted(steps)
    assert f"`INSERT_SLUG_HERE` with `{dataset.split('/')[1]}`" in readme


def test_what_torch_requires_is_fetched_though_torch_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(offline_bundle, "pip", lambda *words, hint="": fetched.extend(words))
    needs = ["torch>=2.9", "rich>=13", "accelerate>=1"]
    download(tmp_path, BundleConfig(tmp_path), needs, ROOT / "constraints.txt")
    assert {"rich>=13", "accelerate>=1", "jinja2", "networkx", "setuptools"} <= {*fetched}
    assert "torch>=2.9" not in fetched
    required = map(Requirement, importlib.metadata.requires("torch") or [])
    plain = {canonicalize_name(one.name) for one in required if one.marker is None}
    assert plain - {"triton"} <= {*TORCH_REQUIRES}, "of the installed torch"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        quick = ("--no-deps", "--retries", "0", "--timeout", "10")
        pip("download", *quick, "-d", str(tmp_path_factory.mktemp("probe")), "truststore")
    except SolverError as error:
        pytest.skip(f"the package index cannot be reached: {error}")


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_an_environment_gets_all_packages_that_it_lacks_from_the_bundle(tmp_path: Path) -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    freeze = tmp_path / "freeze.txt"
    freeze.write_text("torch==2.9.0\n")  # an image that has torch, and nothing that torch requires
    wheels = make_bundle(BundleConfig(tmp_path / "out", python, freeze=freeze))
    brought = {wheel_name(wheel) for wheel in wheels} - {"eightfold"}
    assert {"jinja2", "networkx"} < brought
    here = {
        canonicalize_name(found.metadata["Name"]) for found in importlib.metadata.distributions()
    }
    fresh = environment(tmp_path, brought & here)
    look = [fresh, "-c", "import transformers"]
    assert subprocess.run(look, cwd="/", capture_output=True).returncode != 0
    run = pip_install(fresh, "--find-links", str(tmp_path / "out"), "eightfold")
    assert run.returncode == 0, run.stderr
    problem = "What is the remainder when $5^{8985}$ is divided by 66?"
    command = [fresh.parent / "eightfold", "solve", problem, "--kernels", "8"]
    solved = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=200)
    assert "answer: 23" in solved.stdout, solved.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_wheels_for_the_image(tmp_path: Path) -> None:
    wheels = make_bundle(BundleConfig(tmp_path / "out"))
    names = {wheel_name(wheel) for wheel in wheels}
    assert {"eightfold", "transformers", "tokenizers", "accelerate"} <= names
    assert not names & {"torch", "triton", "numpy"}
    for wheel in wheels:
        assert wheel.name.endswith(("-none-any.whl", "x86_64.whl")), wheel
    lock = (tmp_path / "out" / "eightfold.lock").read_text()
    assert lock.count("--hash=sha256:") == len(wheels)
    pinned = (ROOT / "constraints.txt").read_text().split("\n")
    (ours,) = (wheel for wheel in wheels if wheel_name(wheel) == "transformers")
    assert f"transformers=={wheel_version(ours)}" in pinned, "a tested version"
    for wheel in wheels:
        for need in map(Requirement, wheel_requirements(wheel)):
            name = canonicalize_name(need.name)
            due = need.marker is None or need.marker.evaluate({"python_version": "3.12"})
            if due and name not in names | NEVER_FETCHED:
                assert PRESENT[name] in need.specifier, f"{wheel.name} needs {need}"
    # An image that has all these packages needs only ours.
    freeze = tmp_path / "freeze.txt"
    freeze.write_text("\n".join(f"{wheel_name(w)}=={wheel_version(w)}" for w in wheels))
    kept = set(wheels) - set(unneeded_wheels(tmp_path / "out", read_freeze(freeze)))
    assert {wheel_name(wheel) for wheel in kept} == {"eightfold"}
    freeze.write_text("transformers==4.57.0\ntokenizers==0.22.0\n")
    old = unneeded_wheels(tmp_path / "out", read_freeze(freeze))
    assert "transformers" not in {wheel_name(wheel) for wheel in old}


def test_a_folder_that_exists_is_kept(tmp_path: Path, made: Path) -> None:
    number = tmp_path.stat().st_ino  # a shell whose working directory it is must see the files
    assert main(["bundle", "--out", str(tmp_path), "--model-less", "--no-dependencies"]) == 0
    assert tmp_path.stat().st_ino == number
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in made.iterdir()}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--python", "3"],
        ["--python", "2.7"],
        ["--platform", "macosx_11_0_arm64"],
        ["--freeze", "none.txt"],
        ["--freeze", sys.executable],
        ["--freeze", ""],
        ["--python", "3.12.1"],
        ["--python", "3.²"],
        ["--platform", ""],
        ["--out", "x" * 300],
        ["--out", __file__],
        ["--out", f"{__file__}/below"],
    ],
)
def test_wrong_input_is_reported_in_one_sentence(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_an_index_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert main(["bundle", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "index reachable, and does it have wheels for Python 3.12 on manylinux" in said
    assert not list(tmp_path.iterdir())


def test_a_bundle_needs_a_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        offline_bundle, "__file__", str(tmp_path / "eightfold" / "solver" / "bundle.py")
    )
    assert main(["bundle", "--out", "out"]) == 2
    assert "clone" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
