"""Downloads what is read of a model from Hugging Face into the local cache.

huggingface_hub is imported only when something is downloaded.
"""

from __future__ import annotations

import errno
import glob
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from eightfold.common.error_text import first_line, one_line
from eightfold.engine.loading.refusals.foreign_weights import explain_names
from eightfold.engine.loading.safetensors_headers import INDEX_FILE, SINGLE_FILE, weight_files
from eightfold.engine.model_errors import CheckpointError

from ..chat.prompt_texts import MODEL_PROMPTS
from ..familiarity import FILE as FAMILIARITY_FILE
from ..solver_config import SolverError
from .hub_cache import Repository, cache_folder

CONFIG_FILE = "config.json"

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model"),
    *("sentencepiece.bpe.model", "tekken.json"),
)
"""Files of which a tokenizer needs at least one."""

SMALL_FILES = (
    *(CONFIG_FILE, "generation_config.json", INDEX_FILE, MODEL_PROMPTS, FAMILIARITY_FILE),
    *TOKENIZER_FILES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
    "tokenizer.*.json",  # for certain versions of transformers
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
)
"""All files that are read, as patterns, apart from the weights."""


def download(repository: Repository, *, progress: bool = True) -> Path:
    """Download the files that are read, and return the snapshot's folder.

    Files that are in the cache stay there, and a download that was interrupted goes on. The weights
    come last, after the architecture has been checked. Copies of the weights in other formats or
    under other names are left alone.

    Args:
        repository: the model.
        progress: show progress bars on standard error.

    Raises:
        SolverError: if there is no such model, it may not be downloaded, Hugging Face cannot be
            reached, or the model has no weights that can be loaded.
        eightfold.engine.UnsupportedModelError: if the engine cannot run its layers.
    """
    folder = _fetch(repository, SMALL_FILES, progress=False)
    if (folder / CONFIG_FILE).is_file():
        _check_layers(folder)
        if progress:
            where = f"{repository} from Hugging Face to {cache_folder()}"
            print(f"downloading {where}", file=sys.stderr, flush=True)
        shards = [file.relative_to(folder).as_posix() for file in _weight_files(folder)]
        patterns = [glob.escape(name) for name in shards] or [SINGLE_FILE]
        _fetch(repository, patterns, progress=progress)
        if all(file.is_file() for file in _weight_files(folder) or [folder / SINGLE_FILE]):
            return folder
    names = _listed_names(repository)
    raise SolverError(
        explain_names(names, repository.name)
        or f"{repository} lacks {CONFIG_FILE} or the weights that its files name; give a model "
        f"with {CONFIG_FILE} and {SINGLE_FILE}."
    )


def _fetch(repository: Repository, patterns: Sequence[str], *, progress: bool) -> Path:
    """Download the files that patterns match, and return the snapshot's folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm

    with _interrupt_event() as interrupted:

        class Bar(tqdm):
            """A progress bar that ends the download at an interrupt."""

            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **(options if progress else {**options, "disable": True}))

            def update(self, n: float | None = 1) -> Any:
                if interrupted.is_set():
                    raise RuntimeError("The download was interrupted.")
                return super().update(n)

        hub_logger = logging.getLogger("huggingface_hub")
        level = hub_logger.level
        hub_logger.setLevel(logging.ERROR)  # it warns if no file matches a pattern
        try:
            return Path(
                snapshot_download(
                    repository.name,
                    revision=repository.revision,
                    cache_dir=cache_folder(),
                    allow_patterns=list(patterns),
                    tqdm_class=Bar,
                )
            )
        except Exception as error:  # huggingface_hub raises what it meets in the network
            raise _explained(repository, error) from error
        finally:
            hub_logger.setLevel(level)


@contextmanager
def _interrupt_event() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C sets before it raises KeyboardInterrupt.

    huggingface_hub waits for its threads then, each of which would go on to the end of its file.
    """
    event = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield event
        return

    def handle(number: int, frame: FrameType | None) -> None:
        event.set()
        before(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that hold the weights, most of which need not exist yet.

    Raises:
        SolverError: if the index cannot be read.
    """
    try:
        return weight_files(folder)
    except CheckpointError as error:
        raise SolverError(str(error)) from error


def _check_layers(folder: Path) -> None:
    """Refuse what the engine cannot run before its weights are downloaded.

    Raises:
        UnsupportedModelError: the engine cannot run the architecture.
    """
    from eightfold.engine.inspection.architecture import inspect_architecture
    from eightfold.engine.loading.checkpoint import parse_config

    try:
        config = parse_config(folder)
    except CheckpointError:
        return  # reported when the model is loaded
    inspect_architecture(config)


def _listed_names(repository: Repository) -> list[str]:
    """Return the names of all files of the repository."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(repository.name, revision=repository.revision)
    except Exception as error:  # as above
        raise _explained(repository, error) from error
    return [file.rfilename for file in info.siblings or ()]


class UnreachableError(SolverError):
    """Hugging Face cannot be reached."""


def _explained(repository: Repository, error: Exception) -> SolverError:
    """Return one sentence about what huggingface_hub raised."""
    from huggingface_hub import errors

    name = repository.name
    if isinstance(error, errors.GatedRepoError):
        return SolverError(
            f"{name} is gated; accept its terms at https://huggingface.co/{name}, and log in with "
            "`hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return SolverError(
            f"There is no folder {repository}, and Hugging Face has no public model {name}; check "
            "the spelling, or log in with `hf auth login` if it is private."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return SolverError(
            f"{name} has no revision {repository.revision}; give one of its branches, tags or "
            f"commits after the @, or {name} alone."
        )
    if isinstance(error, errors.HfHubHTTPError):
        return UnreachableError(f"Hugging Face refused the download: {_reason(error)}.")
    network = isinstance(error, (ConnectionError, TimeoutError))
    disk = isinstance(error, OSError) and (error.filename or error.errno == errno.ENOSPC)
    if isinstance(error, OSError) and disk and not network:
        return SolverError(
            f"{repository} cannot be stored in {cache_folder()}: {error.strerror}; make room "
            "there, or set HF_HOME to another folder."
        )
    return UnreachableError(f"Hugging Face cannot be reached: {_reason(error)}.")


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return f"{type(cause).__name__}, {one_line(first_line(cause), 150).rstrip('.')}"
