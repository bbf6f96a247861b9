"""The content of the installed distribution, and the ways to install it. About 30 s.

Each installation goes into a new environment. It sees the packages of this environment, except
this project and `kernels`, through a folder of links, so that nothing large is installed again.
"""

import hashlib
import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from eightfold.demo import model_path

PARTS = ("common", "kernels", "engine", "sandbox", "solver", "demo")


def test_nothing_is_installed_outside_the_namespace() -> None:
    # A build leaves an egg-info in the checkout; what is installed has a dist-info.
    found = [d for d in importlib.metadata.distributions(name="eightfold") if d.read_text("RECORD")]
    assert found, "eightfold is not installed"
    files = found[0].files or []
    assert files
    tops = {file.parts[0] for file in files if not file.parts[0].startswith((".", "__"))}
    tops = {top for top in tops if not top.endswith((".dist-info", ".pth", ".py"))}
    assert tops <= {"eightfold"}, "a top-level kernels or engine would hide another's package"


def test_the_metadata_names_the_requirements() -> None:
    found = importlib.metadata.metadata("eightfold")
    assert found["Requires-Python"] == ">=3.11"
    assert set(found.get_all("Provides-Extra")) == {
        "flash",
        "flash4",
        "inspect",
        "kaggle",
        "ray",
        "serve",
        "test",
    }
    needs = set(found.get_all("Requires-Dist"))
    assert {"torch>=2.9", "transformers>=5.5", "rich>=13"} < needs
    assert {'flash-attn>=2.7; extra == "flash"', 'polars>=1.0; extra == "kaggle"'} < needs


@pytest.mark.parametrize("part", PARTS)
def test_every_part_can_be_imported_and_is_typed(part: str) -> None:
    module = importlib.import_module(f"eightfold.{part}")
    assert module.__doc__
    assert (Path(module.__path__[0]) / "py.typed").is_file()


def test_the_bundled_model_is_installed_in_small_shards() -> None:
    folder = model_path()
    shards = sorted(folder.glob("*.safetensors"))
    assert shards
    assert all(shard.stat().st_size < 16 * 2**20 for shard in shards)
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / name).is_file()


ROOT = Path(__file__).resolve().parents[2]
HIDDEN = ("eightfold", "__editable__", "kernels")
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "runs")

# What is no module but still not data of the package: it works in a clone only.
CLONE_ONLY = {"demo/train.sh"}

# Prints where the parts come from, and which other `kernels` the environment has.
LOOK = """
import importlib, importlib.util, json
found = {}
for name in ("common", "engine", "kernels", "sandbox", "solver", "demo"):
    found[name] = importlib.import_module(f"eightfold.{name}").__path__[0]
from eightfold.demo import model_path
found["model"] = str(model_path())
if importlib.util.find_spec("kernels"):
    import kernels
    found["other kernels"] = kernels.__path__[0]
    found["works"] = callable(kernels.get_kernel)
print(json.dumps(found))
"""

# Prints the SHA-256 of files below the namespace, whose paths are read from standard input.
OPEN = """
import hashlib, importlib.resources, json, sys
found = {}
for path in json.load(sys.stdin):
    part, *names = path.split("/")
    file = importlib.resources.files(f"eightfold.{part}").joinpath(*names)
    found[path] = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "missing"
print(json.dumps(found))
"""


def data_files(source: Path) -> set[str]:
    """Return the paths of all files of the parts that are not modules, nested folders included."""
    found = {
        path.relative_to(source).as_posix()
        for part in PARTS
        for path in source.glob(f"{part}/**/*")
        if path.is_file() and path.suffix != ".py"
    }
    return found - CLONE_ONLY


def pip(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this environment's pip for another interpreter."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), *arguments],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, because builds leave files behind.

    Of each shard it has only the start: most of the time that a build needs goes into compressing
    60 MB of weights.
    """
    try:
        version = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("setuptools is not installed")
    if int(version.partition(".")[0]) < 77:
        pytest.skip(f"setuptools {version} is too old to build with")
    folder = tmp_path_factory.mktemp("source") / "eightfold"
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    for shard in folder.glob("demo/model/**/*.safetensors"):
        os.truncate(shard, 64 * 2**10)
    return folder


@pytest.fixture(scope="session")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run = pip(
        Path(sys.executable),
        *("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder)),
        str(source),
    )
    assert run.returncode == 0, run.stderr
    (built,) = folder.glob("eightfold-*.whl")
    return built


@pytest.fixture(scope="session")
def other_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of Hugging Face's `kernels`, from the package index."""
    folder = tmp_path_factory.mktemp("kernels")
    python = Path(sys.executable)
    quick = ("--retries", "0", "--timeout", "10")
    run = pip(python, "download", "--no-deps", *quick, "-d", str(folder), "kernels")
    if run.returncode != 0:
        pytest.skip("the package index cannot be reached")
    (found,) = folder.glob("kernels-*.whl")
    return found


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to the packages of this environment."""
    folder = tmp_path_factory.mktemp("packages")
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            if not entry.name.startswith(HIDDEN) and not entry.name.endswith(".pth"):
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def environment(tmp_path: Path, packages: Path) -> Path:
    """The interpreter of a new environment."""
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "packages.pth").write_text(f"{packages}\n")
    return folder / "bin" / "python"


def install(python: Path, *what: str) -> None:
    """Install into another interpreter's environment, without an index."""
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--no-compile")
    run = pip(python, "install", *options, *what)
    assert run.returncode == 0, run.stderr


def look(python: Path, folder: Path = Path("/")) -> dict[str, str]:
    """Return what `LOOK` finds in an environment, run in a folder."""
    return run_script(python, LOOK, folder)


def run_script(
    python: Path, script: str, folder: Path = Path("/"), given: object = None
) -> dict[str, str]:
    """Run a script, pass it a value as JSON, and return the JSON object that it prints."""
    run = subprocess.run(
        [str(python), "-c", script],
        cwd=folder,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, str] = json.loads(run.stdout.splitlines()[-1])
    return found


WAYS: dict[str, Callable[[Path, Path], list[str]]] = {
    "pip install .": lambda source, wheel: [str(source)],
    "pip install -e .": lambda source, wheel: ["-e", str(source)],
    "a built wheel": lambda source, wheel: [str(wheel)],
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_install(way: str, source: Path, wheel: Path, environment: Path) -> None:
    install(environment, *WAYS[way](source, wheel))
    found = look(environment)
    place = source if "-e" in way else environment.parents[1]
    assert all(Path(path).resolve().is_relative_to(place) for path in found.values()), found
    files = {path.name for path in Path(found["model"]).iterdir()}
    assert files >= {path.name for path in (ROOT / "demo" / "model").iterdir()}
    # In a folder that holds a checkout, Python finds that one first, and it works too.
    assert look(environment, source.parent)["model"] == str(source / "demo" / "model")
    command = environment.parent / "eightfold"
    shown = subprocess.run([command, "--help"], cwd="/", capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0
    assert "solve" in shown.stdout


def test_every_data_file_can_be_opened_from_an_installed_wheel(
    source: Path, wheel: Path, environment: Path
) -> None:
    """A folder that setup.py does not ship, however deeply nested, fails here."""
    files = data_files(source)
    assert files >= {"demo/MODEL_CARD.md", "demo/model/chat_template.jinja", "kernels/py.typed"}
    assert any(name.endswith(".cu") for name in files)
    assert any(name.endswith(".cuh") for name in files)
    install(environment, str(wheel))
    expected = {
        name: hashlib.sha256((source / name).read_bytes()).hexdigest() for name in sorted(files)
    }
    assert run_script(environment, OPEN, given=sorted(files)) == expected


def test_the_wheel_holds_the_parts_and_nothing_else(source: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    held = {name for name in names if not name.partition("/")[0].endswith(".dist-info")}
    modules = {
        f"eightfold/{path.relative_to(source)}"
        for p in PARTS
        for path in source.glob(f"{p}/**/*.py")
    }
    data = {f"eightfold/{name}" for name in data_files(source)}
    assert held == modules | data
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_a_wheel_can_be_built_from_the_sdist(source: Path, wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", str(tmp_path)]
    run = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    (archive,) = tmp_path.glob("eightfold-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for name in (
        "LICENSE",
        "README.md",
        "constraints.txt",
        "tests/helpers/engine_cases/tiny_models.py",
        "demo/train.sh",
    ):
        assert (unpacked / name).is_file(), name
    options = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w")
    run = pip(Path(sys.executable), *options, str(tmp_path / "built"), str(archive))
    assert run.returncode == 0, run.stderr
    (built,) = (tmp_path / "built").iterdir()
    assert set(zipfile.ZipFile(built).namelist()) == set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize("first", ["eightfold", "kernels"])
def test_installed_beside_the_kernels_package(
    first: str, wheel: Path, other_kernels: Path, environment: Path
) -> None:
    order = [wheel, other_kernels] if first == "eightfold" else [other_kernels, wheel]
    for file in order:
        install(environment, str(file))
    found = look(environment)
    assert found["works"]
    assert Path(found["other kernels"]).name == "kernels"
    assert Path(found["other kernels"]).parent.name == "site-packages"
    assert Path(found["kernels"]).parent.name == "eightfold"
    # Each still works if the other is uninstalled.
    assert pip(environment, "uninstall", "-y", first).returncode == 0
    if first == "kernels":
        assert "works" not in look(environment)
    else:
        use = "import kernels; assert callable(kernels.get_kernel)"
        assert subprocess.run([environment, "-c", use], cwd="/").returncode == 0
