"""Find the models, the file of problems and the competition's server below an input folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eightfold.engine.loading.model_folder import read_json
from eightfold.engine.model_errors import ModelError, UnsupportedModelError
from eightfold.engine.quantization.quantization_config import read_quantization

from ..model_defaults import bundled_model, resolve_model_folder
from ..solver_config import SolverError
from .machine_detection import Machine
from .machine_sizing import RunSizes, choose_sizes, read_checkpoint_size

MAX_DEPTH = 8  # folders below the input folder that are looked into
MAX_LISTED = 12  # candidates named in an error message
MAX_REASON_CHARACTERS = 600  # of why a model was passed over
MAX_FOLDERS = 200  # a folder with more sub-folders is a data set, and not looked into
LANGUAGE_MODELS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
"""Endings of the names of architectures that generate text."""

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
"""Files that make a folder with a config.json a model. Only the first kind can be used."""

MODEL_SUFFIXES = (".safetensors", ".gguf")
"""Files that make a folder a model even without a config.json: no other data has these names."""


@dataclass(frozen=True)
class Inputs:
    """The content of an input folder; paths are sorted, those of outer folders first.

    Attributes:
        root: the input folder.
        models: folders with weights.
        tests: files named test.csv, those beside a server first.
        servers: folders that hold the package kaggle_evaluation.
        tables: all files of the kind .csv, compressed ones included.
    """

    root: Path
    models: tuple[Path, ...]
    tests: tuple[Path, ...]
    servers: tuple[Path, ...]
    tables: tuple[Path, ...]

    def test_file(self) -> Path:
        """Return the file of problems.

        Raises:
            SolverError: there is none. The message lists the tables that were found instead.
        """
        if self.tests:
            return self.tests[0]
        names = ", ".join(str(path.relative_to(self.root)) for path in self.tables[:MAX_LISTED])
        raise SolverError(
            f"There is no test.csv below {self.root}; add the competition's data, unpacked. "
            f"Tables found: {names or 'none'}."
        )


def find_inputs(root: str | Path) -> Inputs:
    """Walk the folder, following links and visiting each real folder once.

    Raises:
        SolverError: there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise SolverError(f"There is no input folder {root}.")
    models: list[Path] = []
    tables: list[Path] = []
    servers: list[Path] = []
    visited: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        path = Path(place)
        real = os.path.realpath(place)
        if real in visited or len(path.relative_to(root).parts) > MAX_DEPTH:
            folders.clear()
            continue
        visited.add(real)
        if "kaggle_evaluation" in folders:
            servers.append(path)
        if len(folders) > MAX_FOLDERS:
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        tables += [path / name for name in files if ".csv" in name.lower()]
        suffixes = WEIGHT_SUFFIXES if "config.json" in files else MODEL_SUFFIXES
        if any(name.endswith(suffixes) for name in files):
            models.append(path)
    tables.sort(key=_outer_first)
    tests = [path for path in tables if path.name == "test.csv"]
    # The competition's own file lies beside its server.
    tests.sort(key=lambda path: path.parent not in servers)
    return Inputs(
        root,
        tuple(sorted(models, key=_outer_first)),
        tuple(tests),
        tuple(sorted(servers, key=_outer_first)),
        tuple(tables),
    )


def _outer_first(path: Path) -> tuple[int, str]:
    """Return the sorting key for paths: outer folders first, then by name."""
    return len(path.parts), str(path)


@dataclass(frozen=True)
class Choice:
    """The chosen model.

    Attributes:
        model: its folder; None is the bundled model.
        sizes: the settings for it on this machine.
        passed: why other models were passed over, a line for each.
    """

    model: Path | None
    sizes: RunSizes
    passed: tuple[str, ...]


def check_architecture(config: Mapping[str, Any]) -> None:
    """Refuse early what the engine would refuse later, when the run depends on it.

    Args:
        config: the content of a config.json.

    Raises:
        SolverError: the model is not a language model, or quantized in a way that is not read.
    """
    names = [str(name) for name in config.get("architectures") or ()]
    if names and not any(name.endswith(LANGUAGE_MODELS) for name in names):
        raise SolverError(f"it is not a language model but {names[0]}.")
    try:
        read_quantization(config)
    except UnsupportedModelError as error:
        raise SolverError(str(error)) from error


def choose_model(machine: Machine, models: tuple[Path, ...]) -> Choice:
    """Choose the largest model that fits the machine.

    If none fits, the bundled model is chosen. It runs on the CPU if the GPU is too small for it.

    Args:
        machine: what the model must fit.
        models: folders to choose from.

    Raises:
        SolverError: no model fits and none is bundled (the message names the candidates), or
            there is too little memory even for the bundled one.
    """
    passed: list[str] = []
    fitting: list[tuple[int, Path, RunSizes]] = []
    for folder in models:
        try:
            folder = resolve_model_folder(folder)
            check_architecture(read_json(folder / "config.json"))
            size = read_checkpoint_size(folder)
            fitting.append((size.weight_bytes, folder, choose_sizes(machine, size)))
        except (SolverError, ValueError, TypeError, AttributeError, OSError) as error:
            passed.append(f"{folder}: {error}"[:MAX_REASON_CHARACTERS])
    if fitting:
        _, folder, sizes = max(fitting, key=lambda entry: entry[0])
        return Choice(folder, sizes, tuple(passed))
    try:
        size = read_checkpoint_size(bundled_model())
    except (SolverError, ModelError) as error:
        listed = "; ".join(passed[:MAX_LISTED]) or "none"
        raise SolverError(
            "No model can be used and none is bundled; add one in Hugging Face's format to the "
            f"inputs. Candidates: {listed}"
        ) from error
    try:
        return Choice(None, choose_sizes(machine, size), tuple(passed))
    except SolverError as error:  # the GPU is too small even for the bundled model
        passed.append(f"the GPU: {error}")
        return Choice(None, choose_sizes(replace(machine, gpu=0), size), tuple(passed))
