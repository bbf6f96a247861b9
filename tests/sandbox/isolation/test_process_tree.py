"""Process trees and folders, measured without any kernel. Under 1 s."""

import os
import subprocess
import sys
from pathlib import Path

from eightfold.sandbox.isolation import process_tree


def test_a_process_tree_is_found_and_measured() -> None:
    script = "import subprocess, sys\np = subprocess.Popen(['sleep', '60'])\nprint(p.pid)\np.wait()"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert process_tree.tree_pids(parent.pid) == [parent.pid, child]
        assert child in process_tree.tree_pids(os.getpid())
        assert process_tree.thread_count([parent.pid, child]) == 2
        assert (
            0
            < process_tree.proportional_bytes([parent.pid])
            <= process_tree.resident_bytes([parent.pid])
        )
    finally:
        for pid in (child, parent.pid):
            os.kill(pid, 9)
        parent.communicate()
    assert process_tree.tree_pids(parent.pid) == [parent.pid]
    assert process_tree.resident_bytes([parent.pid]) == 0


SPARSE = """
import ctypes, time
mmap = ctypes.CDLL(None).mmap
mmap.restype = ctypes.c_long
mmap.argtypes = [ctypes.c_ulong, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
for i in range(2000):  # a page in each GiB, only read: it takes page tables and nothing else
    ctypes.string_at(mmap((1 << 40) + (i << 30), 4096, 1, 0x100022, -1, 0), 1)
print("ready", flush=True)
time.sleep(60)
"""


def test_page_tables_count() -> None:
    with subprocess.Popen([sys.executable, "-c", SPARSE], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process_tree.resident_bytes([process.pid]) > 2000 * 8192
        assert process_tree.proportional_bytes([process.pid]) > 2000 * 8192
        process.kill()


def test_a_folder_is_measured_up_to_a_number_of_entries(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_bytes(b"x" * 10_000)
    size, files = process_tree.folder_usage(tmp_path, 100)
    assert (files, size >= 10_000) == (2, True)
    assert process_tree.folder_usage(tmp_path, 1)[1] > 1
    os.mkfifo(tmp_path / "a" / "pipe")
    (tmp_path / "link").symlink_to("/usr")
    assert process_tree.folder_usage(tmp_path, 100)[1] == 4
