"""Control groups, on folders that look like those of Linux. Under 1 s."""

from pathlib import Path

import pytest

from eightfold.sandbox.isolation import control_group
from eightfold.sandbox.isolation.control_group import ControlGroups, NoGroupError, find_parent

MOUNTS = "31 23 0:26 / /sys rw - sysfs sysfs rw\n35 31 0:30 / {} rw,nosuid - cgroup2 cgroup2 rw\n"


def make_group(group: Path, passes: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cgroup.subtree_control").write_text(passes)
    (group / "cgroup.procs").touch()


def test_the_nearest_group_that_passes_its_controllers_on_is_taken(tmp_path: Path) -> None:
    mounts = MOUNTS.format(tmp_path)
    make_group(tmp_path, "cpu memory pids\n")
    make_group(tmp_path / "user.slice", "memory pids")
    make_group(tmp_path / "user.slice/app.scope", "")
    assert find_parent(mounts, "3:pids:/\n0::/user.slice/app.scope\n") == tmp_path / "user.slice"
    make_group(tmp_path / "user.slice", "memory")
    assert find_parent(mounts, "0::/user.slice/app.scope\n") == tmp_path
    make_group(tmp_path, "cpu")
    with pytest.raises(NoGroupError, match="passes memory and pids on"):
        find_parent(mounts, "0::/user.slice/app.scope\n")


@pytest.mark.parametrize(
    ("mounts", "membership"),
    [
        ("31 23 0:26 / /sys rw - sysfs sysfs rw\n", "0::/\n"),
        (MOUNTS.format("/nowhere"), "4:memory:/a\n"),  # version 1 alone
        (MOUNTS.format("/nowhere"), "0::/../outside\n"),
    ],
)
def test_a_machine_without_groups_is_named(mounts: str, membership: str) -> None:
    with pytest.raises(NoGroupError, match="not mounted"):
        find_parent(mounts, membership)


def test_a_kernel_gets_a_group_with_its_limits(tmp_path: Path) -> None:
    groups = ControlGroups(1000, 20, tmp_path)
    (pool,) = tmp_path.iterdir()
    assert (pool / "cgroup.subtree_control").read_text() == "+memory +pids"
    group = groups.create("7")
    assert {path.name: path.read_text() for path in group.iterdir()} == {
        "memory.max": "1000",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "20",
    }
    control_group.enter(group)
    assert (group / "cgroup.procs").read_text() == "0"


def test_groups_of_a_killed_template_are_removed(tmp_path: Path) -> None:
    kernel = tmp_path / "eightfold-999999999" / "1"  # no process has this number
    kernel.mkdir(parents=True)
    (tmp_path / "eightfold-1").mkdir()
    (tmp_path / "other").mkdir()
    groups = ControlGroups(1000, 20, tmp_path)
    assert not kernel.parent.exists()
    (pool,) = (path for path in tmp_path.iterdir() if (path / "cgroup.subtree_control").exists())
    (pool / "cgroup.subtree_control").unlink()  # Linux removes a group with its files
    groups.close()
    assert {path.name for path in tmp_path.iterdir()} == {"eightfold-1", "other"}
