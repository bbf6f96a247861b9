"""From what a user names, a file, a folder or an id of Hugging Face, to a set of problems."""

from __future__ import annotations

from pathlib import Path

from eightfold.common.error_text import first_line, one_line

from ..models.hub_cache import Repository, cache_folder, offline_variable, parse_repository
from ..problem_set import Columns, ProblemSet
from ..solver_config import SolverError
from .dataset_files import repository_files, saved_files

CARD = "README.md"


def open_problems(
    source: str,
    columns: Columns | None = None,
    *,
    subset: str | None = None,
    split: str | None = None,
    first: int | None = None,
) -> ProblemSet:
    """Return the problems of a file, of a data set's folder, or of a data set of Hugging Face.

    Args:
        source: the path, or an id, `org/name` or `org/name@revision`, which is downloaded unless it
            is in the local cache. A path that exists wins.
        columns: names of the columns.
        subset, split: part of a data set; see `repository_files`.
        first: take only so many problems; None takes all.

    Raises:
        SolverError: if there is nothing of that name, or not clear which part is meant.
    """
    path = Path(source).expanduser()
    repository = None if path.exists() else parse_repository(source)
    if path.is_dir():
        files = saved_files(path, split)
        if not files:
            names = [one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file()]
            files = [path / name for name in _chosen(str(path), names, path, subset, split)]
    elif repository is not None and path.suffix.lower() not in (".csv", ".jsonl", ".parquet"):
        files = _download(repository, subset, split)
    else:
        if subset is not None or split is not None:
            raise SolverError(f"{path} is a file; --subset and --split are for data sets.")
        files = [path]
    return ProblemSet(files, columns, first)


def _chosen(
    name: str, names: list[str], folder: Path, subset: str | None, split: str | None
) -> list[str]:
    """Return the names of the files that hold a part of a repository's folder."""
    visible = [one for one in names if not any(part.startswith(".") for part in one.split("/"))]
    card = folder / CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    return repository_files(name, visible, text, subset, split)


def _download(repository: Repository, subset: str | None, split: str | None) -> list[Path]:
    """Download one part of a data set, unless the cache holds it, and return its files."""
    from huggingface_hub import HfApi, snapshot_download

    def fetch(patterns: list[str]) -> Path:
        return Path(
            snapshot_download(
                repository.name,
                repo_type="dataset",
                revision=repository.revision,
                cache_dir=cache_folder(),
                allow_patterns=patterns,
            )
        )

    try:
        folder = fetch([CARD])
        if offline_variable() is None:
            api = HfApi()
            names = api.list_repo_files(
                repository.name, repo_type="dataset", revision=repository.revision
            )
        else:
            names = [
                one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()
            ]
        chosen = _chosen(str(repository), names, folder, subset, split)
        folder = fetch(chosen)
    except SolverError:
        raise
    except Exception as error:  # huggingface_hub raises what it meets in the network
        raise _explained(repository, error) from error
    return [folder / name for name in chosen]


def _explained(repository: Repository, error: Exception) -> SolverError:
    """Return one sentence about what huggingface_hub raised."""
    from huggingface_hub import errors

    name = repository.name
    if isinstance(error, errors.GatedRepoError):
        return SolverError(
            f"The data set {name} is gated; accept its terms at https://huggingface.co/datasets/"
            f"{name}, and log in with `hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)):
        return SolverError(
            f"There is no file or folder {repository}, and Hugging Face has no public data set of "
            "that name; check the spelling, or log in with `hf auth login` if it is private."
        )
    variable = offline_variable()
    if variable is not None:
        return SolverError(
            f"There is no file or folder {repository}, the cache holds no data set of that name, "
            f"and {variable} forbids to download it; unset it, or give a file."
        )
    reason = f"{type(error).__name__}, {one_line(first_line(error), 150).rstrip('.')}"
    return SolverError(f"The data set {name} cannot be downloaded: {reason}.")
