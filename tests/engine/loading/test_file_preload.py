"""Preloading into the OS page cache: what is read, in which order, and what stops it."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from eightfold.engine import CheckpointError
from eightfold.engine.loading import file_preload, os_page_cache
from eightfold.engine.loading.file_preload import Preload, PreloadConfig
from eightfold.engine.loading.folder_listing import list_files
from eightfold.solver.cli.command_line import main

MIB = 1 << 20


def write_file(path: Path, size: int, cold: bool = True) -> Path:
    """Write random bytes, and drop them from the OS page cache if ``cold``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    if cold:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    return path


def page_cache_can_be_dropped(folder: Path) -> bool:
    return os_page_cache.resident_bytes(write_file(folder / "probe" / "x", MIB)) == 0


def test_cold_files_become_resident_and_warm_ones_are_skipped(tmp_path: Path) -> None:
    if not page_cache_can_be_dropped(tmp_path):
        pytest.skip("this file system does not drop its pages")
    folder = tmp_path / "model"
    sizes = [20 * MIB + 5, 3 * MIB, 777]
    for index, size in enumerate(sizes):
        write_file(folder / f"{index}.bin", size)
    before = set(threading.enumerate())
    with Preload(folder, PreloadConfig(threads=3)) as running:
        running.wait()
        report = running.report()
    assert (report.resident_before, report.resident_after) == (0, sum(sizes))
    assert report.total == sum(sizes)
    assert 0 < report.read <= sum(sizes)
    assert (report.ending, report.unreadable) == ("done", ())
    assert running.progress().done == sum(sizes)
    assert set(threading.enumerate()) == before
    again = Preload(folder)
    again.wait()
    assert again.report().read == 0
    assert again.report().resident_before == sum(sizes)


def test_single_pages_are_resident(tmp_path: Path) -> None:
    if not page_cache_can_be_dropped(tmp_path):
        pytest.skip("this file system does not drop its pages")
    page = os_page_cache.PAGE_BYTES
    file = write_file(tmp_path / "f", 64 * page + 1)
    fd = os.open(file, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
    os.pread(fd, 10, 40 * page)
    pages = os_page_cache.resident_pages(fd, 0, 64 * page + 1)
    assert pages is not None
    assert len(pages) == 65
    assert pages[40] == 1
    assert pages.count(1) < 65
    assert os_page_cache.resident_pages(fd, 40 * page, page) == b"\1"
    assert os_page_cache.resident_pages(fd, 0, 0) == b""
    os.close(fd)


def test_files_of_unknown_residency_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "f", 3 * MIB, cold=False)
    monkeypatch.setattr(os_page_cache, "_residency_is_known", lambda fd: False)
    running = Preload(tmp_path)
    running.wait()
    report = running.report()
    assert (report.resident_before, report.resident_after) == (None, None)
    assert report.read == 3 * MIB


def test_order_is_largest_first_with_shards_in_index_order(tmp_path: Path) -> None:
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for name, size in zip(names, (100, 300, 200), strict=True):
        write_file(tmp_path / name, size)
    index = {"weight_map": {"b": names[1], "a": names[0], "c": names[2]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    write_file(tmp_path / "big", 5000)
    write_file(tmp_path / "below" / "middle", 500)
    files, faults = list_files(tmp_path)
    assert faults == []
    assert [file.path.name for file in files][:5] == ["big", *names, "middle"]


def test_shards_that_are_links_are_in_index_order(tmp_path: Path) -> None:
    # As in a download cache, where the files are first found under names without an order.
    (tmp_path / "snapshot").mkdir()
    for index, size in enumerate((100, 300, 200), start=1):
        write_file(tmp_path / "blobs" / f"{9 - index}", size)
        link = tmp_path / "snapshot" / f"model-{index}.safetensors"
        link.symlink_to(f"../blobs/{9 - index}")
    weight_map = {str(i): f"model-{i}.safetensors" for i in (3, 1, 2)}
    index_file = tmp_path / "snapshot" / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"weight_map": weight_map}))
    write_file(tmp_path / "other", 500)
    files, faults = list_files(tmp_path)
    assert faults == []
    assert [file.size for file in files][:4] == [100, 300, 200, 500]


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "", ".", "none", "../x", 3, None], ids=repr)
def test_an_index_that_names_no_file_is_ignored(tmp_path: Path, name: object) -> None:
    write_file(tmp_path / "small", 10)
    write_file(tmp_path / "large", 1000)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": name, "y": "small"}}))
    files, faults = list_files(tmp_path)
    assert faults == []
    assert {file.path.name for file in files} == {"small", "large", index.name}


def test_weights_that_no_loader_reads_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "models" / "one"
    wanted = [
        *("config.json", "tokenizer.json", "model-1.safetensors", "model-2.safetensors"),
        *("draft/model.safetensors", "notes/table.csv", "model.safetensors.index.json"),
    ]
    for name in wanted:
        write_file(model / name, 10)
    weight_map = {str(i): f"model-{i}.safetensors" for i in (1, 2)}
    (model / wanted[-1]).write_text(json.dumps({"weight_map": weight_map}))
    os.link(model / "model-1.safetensors", model / "a-name-before.safetensors")
    unread = (
        *("consolidated.safetensors", "adapter_model.safetensors", "pytorch_model.bin"),
        *("original/consolidated.00.pth", "model-Q4.GGUF", "draft/other.safetensors"),
    )
    for name in unread:
        write_file(model / name, 1000)
    loose = write_file(tmp_path / "models" / "loose.gguf", 20)  # beside no checkpoint
    wanted[wanted.index("model-1.safetensors")] = "a-name-before.safetensors"
    for folder in (tmp_path, model):
        running = Preload(folder)
        running.wait()
        names = {file.path for file in running.files} - {loose}
        assert names == {model / name for name in wanted}
        assert running.report().left_out == 1000 * len(unread)
        assert running.report().unreadable == ()
    assert main(["preload", str(model), "--json"]) == 0
    line, table = capsys.readouterr().out.splitlines()
    assert line.endswith("left out 0.00 GB of weights that are not read")
    assert json.loads(table)["left_out"] == 1000 * len(unread)


def test_links_are_followed_once_and_pipes_skipped(tmp_path: Path) -> None:
    elsewhere = write_file(tmp_path / "store" / "blob", 100)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "one").symlink_to(elsewhere)
    (folder / "two").symlink_to(elsewhere)
    os.link(elsewhere, folder / "three")
    (folder / "loop").symlink_to(folder)
    (folder / "gone").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "pipe")
    (folder / "empty").touch()
    files, faults = list_files(folder)
    assert [file.size for file in files] == [100]
    assert len(faults) == 1
    assert "gone" in faults[0]


def test_a_folder_nested_deeper_than_the_recursion_limit(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("f", os.O_CREAT, dir_fd=here))
    os.close(here)
    write_file(tmp_path / "g", 10)
    try:
        files, faults = list_files(tmp_path)
    finally:
        # pytest removes old folders with a recursive function.
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)
    assert ([file.path.name for file in files], faults) == (["g"], [])


def test_files_that_shrink_vanish_or_grow_during_the_preload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gone", "grown", "shrunk"):
        write_file(tmp_path / name, 20 * MIB, cold=False)
    real = file_preload.list_files

    def found(folder: Path) -> object:
        found = real(folder)
        (tmp_path / "gone").unlink()
        os.truncate(tmp_path / "shrunk", 5 * MIB)
        os.truncate(tmp_path / "grown", 40 * MIB)
        return found

    monkeypatch.setattr(file_preload, "list_files", found)
    monkeypatch.setattr(
        file_preload, "resident_pages", lambda *_: None
    )  # so that everything is read
    descriptors = len(os.listdir("/proc/self/fd"))
    running = Preload(tmp_path, PreloadConfig(threads=3))
    running.wait()
    report = running.report()
    assert report.unreadable == (
        f"{tmp_path / 'gone'} (No such file or directory)",
        f"{tmp_path / 'shrunk'} (the file became shorter)",
    )
    assert report.read == 25 * MIB
    assert report.resident_after is None or report.resident_after <= report.total == 60 * MIB
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_unreadable_files_are_named_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write_file(tmp_path / "bad", 9 * MIB, cold=False)
    write_file(tmp_path / "good", MIB, cold=False)
    number = bad.stat().st_ino
    real = os.preadv

    def preadv(fd: int, views: list, at: int) -> int:
        if os.fstat(fd).st_ino == number and at >= 8 * MIB:
            raise OSError(5, "Input/output error")
        return real(fd, views, at)

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os_page_cache, "_residency_is_known", lambda fd: False)
    assert main(["preload", str(tmp_path), "--quiet", "--json"]) == 3
    shown = capsys.readouterr()
    assert shown.err == f"could not be read: {bad} (Input/output error)\n"
    assert json.loads(shown.out.splitlines()[-1])["read"] == 9 * MIB


def test_preload_stops_quietly_if_memory_would_not_hold_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "f", 64 * MIB, cold=False)
    monkeypatch.setattr(os_page_cache, "_residency_is_known", lambda fd: False)
    monkeypatch.setattr(file_preload, "available_memory", lambda: 40 * MIB)
    running = Preload(tmp_path, PreloadConfig(threads=1, reserve_bytes=8 * MIB))
    running.wait()
    report = running.report()
    assert report.ending == "memory"
    assert report.read == 32 * MIB
    assert report.unreadable == ()


def test_stop_ends_the_preload_early_and_may_be_called_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "f", 64 * MIB, cold=False)
    monkeypatch.setattr(os_page_cache, "_residency_is_known", lambda fd: False)
    reached, go = threading.Event(), threading.Event()
    real = os.preadv

    def preadv(*rest: object) -> int:
        reached.set()
        go.wait(10)
        return real(*rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "preadv", preadv)
    running = Preload(tmp_path, PreloadConfig(threads=2))
    reached.wait(10)
    with pytest.raises(RuntimeError, match="still running"):
        running.report()
    threading.Timer(0.1, go.set).start()
    running.stop()
    running.stop()
    report = running.report()
    assert report.ending == "stopped"
    assert report.read <= 16 * MIB


def test_an_interrupted_command_exits_with_130(tmp_path: Path) -> None:
    # A disk that returns one byte at a time, so that the command is still running on any machine.
    # Each thread writes its line with one call; `print` makes two, whose output would be mixed.
    code = (
        "import os, sys, signal, threading; from eightfold.solver.cli.command_line import main;"
        "os.preadv = lambda *_: (os.write(1, b'reading\\n'), threading.Event().wait(0.2), 1)[2];"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "sys.exit(main(['preload', sys.argv[1]]))"
    )
    write_file(tmp_path / "f", 20 * MIB)
    command = [sys.executable, "-c", code, str(tmp_path)]
    if os_page_cache.resident_bytes(tmp_path / "f"):
        pytest.skip("this file system does not drop its pages")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "Interrupted.\n")


def test_wrong_arguments_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_file(tmp_path / "below" / "file", 10)
    with pytest.raises(CheckpointError, match="There is no folder"):
        Preload(tmp_path / "none")
    for arguments, words in (
        ([str(tmp_path / "none")], "There is no folder"),
        ([str(file)], "is not a folder; give the folder that contains it"),
        ([""], "name is empty"),
        ([str(tmp_path), "--threads", "0"], "--threads must be at least 1"),
        ([str(tmp_path), "--threads", "999"], "threads must be from 1 to 256"),
        ([str(tmp_path), "--chunk", "0"], "--chunk must be at least 1"),
        ([str(tmp_path), "--reserve", "-1"], "--reserve must be at least 0"),
        ([], "DIR"),
    ):
        assert main(["preload", *arguments]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert len(said.splitlines()) == 1
    file.unlink()
    assert main(["preload", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("0 files of 0.00 GB")
    for change in ({"threads": 0}, {"chunk_bytes": 1000}, {"reserve_bytes": -1}):
        with pytest.raises(ValueError, match=next(iter(change))):
            PreloadConfig(**change)


def test_preload_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    code = (
        "import sys, eightfold.engine.loading.file_preload as p; p.Preload(sys.argv[1]).wait();"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
