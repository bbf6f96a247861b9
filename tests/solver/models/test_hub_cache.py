"""Models are found in the cache of Hugging Face without its library (1 s)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.solver_cases.hub_caches import COMMIT, write_cached

from eightfold.solver.models import hub_cache
from eightfold.solver.models.hub_cache import Repository, parse_repository

VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")
OTHER = "f" * 40


@pytest.mark.parametrize(
    ("text", "name", "revision"),
    [
        ("org/name", "org/name", None),
        ("Qwen/Qwen2.5-Coder-1.5B-Instruct", "Qwen/Qwen2.5-Coder-1.5B-Instruct", None),
        ("o/n@v1.0", "o/n", "v1.0"),
        ("o_1/n-2@refs/pr/12", "o_1/n-2", "refs/pr/12"),
        (f"o/n@{COMMIT}", "o/n", COMMIT),
    ],
)
def test_ids_are_an_organization_a_name_and_perhaps_a_revision(
    text: str, name: str, revision: str | None
) -> None:
    repository = parse_repository(text)
    assert repository == Repository(name, revision)
    assert str(repository) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "name", "/org/name", "./org/name", "../org", "~/name", "a/b/c", "org/", "/name"),
        *("org/name/", "org/name@", "org/na me", "org/na--me", "org/name..x", "org/name.git"),
        *("org/name@../../x", "org/name@/x", "org/-name", ".org/name", "org/name@a b", "o/n@a@b c"),
        *("https://huggingface.co/org/name", "org/näme", "org/" + "n" * 97, "org\\name/x"),
    ],
)
def test_other_texts_are_no_ids(text: str) -> None:
    assert parse_repository(text) is None


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"XDG_CACHE_HOME": "{}/xdg"},
        {"HF_HOME": "{}/home"},
        {"HF_HOME": "~/home", "XDG_CACHE_HOME": "{}/xdg"},
        {"HF_HUB_CACHE": "{}/cache", "HF_HOME": "{}/home"},
        {"HUGGINGFACE_HUB_CACHE": "{}/old", "HF_HOME": "{}/home"},
        {"HF_HUB_CACHE": "$HF_HOME/below", "HF_HOME": "{}/home"},
    ],
    ids=" ".join,
)
def test_the_cache_lies_where_huggingface_hub_looks(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert hub_cache.cache_folder() == Path(done.stdout.strip())


@pytest.mark.parametrize(
    ("hub", "transformers", "expected"),
    [
        (None, None, None),
        ("1", None, "HF_HUB_OFFLINE"),
        ("true", None, "HF_HUB_OFFLINE"),
        ("0", "1", None),
        ("", "yes", "TRANSFORMERS_OFFLINE"),
        ("no", None, None),
    ],
)
def test_offline_is_what_huggingface_hub_takes_for_it(
    hub: str | None,
    transformers: str | None,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("HF_HUB_OFFLINE", hub), ("TRANSFORMERS_OFFLINE", transformers)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert hub_cache.offline_variable() == expected


def test_snapshots_are_found_by_branch_tag_and_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    new = write_cached(tmp_path, "org/name", {"config.json": b"{}"})
    old = write_cached(tmp_path, "org/name", {"config.json": b"1"}, commit=OTHER, revision="v1")
    write_cached(tmp_path, "org/name", {}, commit=OTHER, revision="refs/pr/3")
    folder = Repository("org/name").folder
    assert folder == tmp_path / "models--org--name"
    assert hub_cache.snapshots(folder) == [new, old]
    for revision, expected in {
        **{None: new, "main": new, COMMIT: new, COMMIT[:7]: new},
        **{"v1": old, "refs/pr/3": old, OTHER: old, OTHER[:12]: old},
        **{"v2": None, "0" * 40: None, COMMIT[:6]: None, "..": None, "": new},
    }.items():
        assert hub_cache.snapshot(folder, revision) == expected, revision
    assert hub_cache.cached_names() == ["org/name"]


@pytest.mark.parametrize("reference", ["", "..", "../../other", ".", "a\nb", COMMIT[:-1]])
def test_broken_references_lead_nowhere(reference: str, tmp_path: Path) -> None:
    write_cached(tmp_path, "org/name", {"config.json": b"{}"})
    folder = tmp_path / "models--org--name"
    (folder / "refs" / "main").write_text(reference)
    assert hub_cache.snapshot(folder, None) is None


def test_a_missing_cache_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    assert hub_cache.cached_names() == []
    assert hub_cache.snapshots(tmp_path / "none") == []
    assert hub_cache.snapshot(tmp_path / "none", None) is None
