"""Memory limits as control groups state them."""

from pathlib import Path

import pytest

from eightfold.common import host_memory
from eightfold.common.host_memory import available_memory, total_memory


def write_group(folder: Path, files: host_memory._GroupFiles, limit: str, used: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / files.limit).write_text(f"{limit}\n")
    (folder / files.usage).write_text(f"{used}\n")
    first, second = files.caches
    (folder / "memory.stat").write_text(f"anon 7\n{first} 30\n{second} 4\nother 9\n")


def test_available_memory_of_one_group(tmp_path: Path) -> None:
    files = host_memory._V2
    write_group(tmp_path, files, "1000", 484)
    assert host_memory._group_available(tmp_path, files) == 550
    write_group(tmp_path, files, "max", 484)
    assert host_memory._group_available(tmp_path, files) is None
    assert host_memory._group_available(tmp_path / "missing", files) is None


def test_a_group_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    write_group(tmp_path, host_memory._V2, "1000", 5000)
    assert host_memory._group_available(tmp_path, host_memory._V2) == 0


def test_the_groups_around_this_process_limit_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_memory, "CGROUP", tmp_path)
    groups = list(host_memory._control_groups())
    assert (tmp_path, host_memory._V2) in groups
    assert (tmp_path / "memory", host_memory._V1) in groups
    machine = total_memory()
    assert machine > 1 << 20  # no group has a limit here
    folder, files = max(groups, key=lambda group: len(group[0].parts))
    write_group(folder, files, "5000", 4000)
    assert available_memory() == 1034
    assert total_memory() == 5000
