"""Finds models, the file of problems and the competition's server below an input folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eightfold.engine.loading.model_folder import read_json
from eightfold.engine.model_errors import ModelError

from ..model_defaults import bundled_model, resolve_model_folder
from ..solver_config import SolverError
from .machine_sizing import Machine, Sizes, read_weights, sizes_for

DEPTH = 8  # folders below the input folder that are looked into
LISTED = 12  # candidates named in an error
LANGUAGE = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")  # all but the first are passed over
ALWAYS = (".safetensors", ".gguf")  # no other data is kept so: a model without its config.json
WIDE = 200  # more entries than this are a data set, not looked into


@dataclass(frozen=True)
class Inputs:
    """What an input folder holds; paths are sorted, shallow ones first."""

    root: Path
    models: tuple[Path, ...]
    tests: tuple[Path, ...]
    servers: tuple[Path, ...]
    seen: tuple[Path, ...]

    def test_file(self) -> Path:
        """The file of problems.

        Raises:
            SolverError: there is none; what was found instead is listed.
        """
        if self.tests:
            return self.tests[0]
        names = ", ".join(str(path.relative_to(self.root)) for path in self.seen[:LISTED])
        raise SolverError(
            f"There is no test.csv below {self.root}; add the competition's data, unpacked. "
            f"Tables found: {names or 'none'}."
        )


def find_inputs(root: str | Path) -> Inputs:
    """Walks the folder, links followed, each real folder once.

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
        if real in visited or len(path.relative_to(root).parts) > DEPTH:
            folders.clear()
            continue
        visited.add(real)
        if "kaggle_evaluation" in folders:
            servers.append(path)
        if len(folders) > WIDE:
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        tables += [path / name for name in files if ".csv" in name.lower()]
        if any(name.endswith(WEIGHTS if "config.json" in files else ALWAYS) for name in files):
            models.append(path)

    def order(path: Path) -> tuple[int, str]:
        return len(path.parts), str(path)

    tables.sort(key=order)
    # The competition's own is the one beside its server.
    tests = tuple(
        sorted(
            (path for path in tables if path.name == "test.csv"),
            key=lambda path: path.parent not in servers,
        )
    )
    return Inputs(
        root,
        tuple(sorted(models, key=order)),
        tests,
        tuple(sorted(servers, key=order)),
        tuple(tables),
    )


@dataclass(frozen=True)
class Choice:
    """The model to use (None: the bundled one), its settings, and why others were passed over."""

    model: Path | None
    sizes: Sizes
    passed: tuple[str, ...]


def check_kind(config: dict[str, Any]) -> None:
    """Refuses what the engine would refuse later, when the run depends on it.

    Raises:
        SolverError: no language model, or a quantized one.
    """
    kinds = [str(kind) for kind in config.get("architectures") or ()]
    if kinds and not any(kind.endswith(LANGUAGE) for kind in kinds):
        raise SolverError(f"it is no language model but {kinds[0]}.")
    if any("quantization_config" in one for one in (config, config.get("text_config") or {})):
        raise SolverError("it is quantized, which the engine does not run.")


def choose_model(machine: Machine, models: tuple[Path, ...]) -> Choice:
    """The largest model that fits the machine; where none does the bundled one, at need on the CPU.

    Raises:
        SolverError: no model fits and none is bundled, the candidates are named; or there is too
            little memory for that too.
    """
    passed: list[str] = []
    fitting: list[tuple[int, Path, Sizes]] = []
    for folder in models:
        try:
            check_kind(read_json(resolve_model_folder(folder) / "config.json"))
            weights = read_weights(folder)
            fitting.append((weights.size, folder, sizes_for(machine, weights)))
        except (SolverError, ValueError, TypeError, AttributeError, OSError) as error:
            passed.append(f"{folder}: {error}"[:300])
    if fitting:
        _, folder, sizes = max(fitting, key=lambda entry: entry[0])
        return Choice(folder, sizes, tuple(passed))
    try:
        weights = read_weights(bundled_model())
    except (SolverError, ModelError) as error:
        listed = "; ".join(passed[:LISTED]) or "none"
        raise SolverError(
            "No model can be used and none is bundled; add one in Hugging Face's format to the "
            f"inputs. Candidates: {listed}"
        ) from error
    try:
        return Choice(None, sizes_for(machine, weights), tuple(passed))
    except SolverError as error:  # a GPU that is too small even for that
        passed.append(f"the GPU: {error}")
        return Choice(None, sizes_for(replace(machine, gpu=0), weights), tuple(passed))
