"""Kernels that cannot be taken over once the template has forked them leave nothing. About 5 s."""

import errno
import os
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.cell_waits import wait_until

from eightfold.sandbox import PoolConfig, SandboxError
from eightfold.sandbox.host import template_process
from eightfold.sandbox.host.kernel_process import KernelProcess
from eightfold.sandbox.host.kernel_starter import KernelStarter
from eightfold.sandbox.host.pool_state import PoolState
from eightfold.sandbox.host.template_process import TemplateProcess


@pytest.fixture(scope="module")
def template() -> Iterator[TemplateProcess]:
    template = TemplateProcess(PoolConfig(size=1, spares=0))
    try:
        assert template.await_warm(60)
        yield template
    finally:
        template.close()


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def await_end_of_kernels(template: TemplateProcess) -> None:
    wait_until(lambda: not any(template.root.glob("[0-9]*")))  # their folders go last


def started(template: TemplateProcess) -> KernelProcess:
    """Return a kernel that is ready for cells."""
    process = template.fork_kernel(60)
    while process.read_report() is None:  # which waits for the next message
        pass
    return process


def test_a_kernel_that_the_pool_cannot_hold_is_left(
    template: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(template_process, "KernelProcess", refuse)
        with pytest.raises(FileNotFoundError):
            template.fork_kernel(60)
    assert open_descriptors() == before
    await_end_of_kernels(template)


def test_a_kernel_whose_descriptor_is_lost_is_left(
    template: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = template._receive

    def lose() -> tuple[dict[str, Any], list[int]]:
        message, fds = receive()
        for fd in fds:
            os.close(fd)
        return message, []

    before = open_descriptors()
    monkeypatch.setattr(template, "_receive", lose)
    with pytest.raises(SandboxError, match="raise ulimit -n"):
        template.fork_kernel(60)
    assert open_descriptors() == before
    await_end_of_kernels(template)


def test_a_kernel_ends_when_the_pool_lets_go_of_its_channel(template: TemplateProcess) -> None:
    process = started(template)
    process.channel.close()
    assert process.wait(60)
    process.close()


def test_a_kernel_whose_report_cannot_be_read_is_closed(
    template: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    before = open_descriptors()
    process = template.fork_kernel(60)
    monkeypatch.setattr(process, "read_report", refuse)
    starter = KernelStarter(PoolState(PoolConfig(size=1, spares=0)))
    starter._reporting[process.report_fd] = process
    with pytest.raises(OSError, match="Too many open files"):
        starter._read_report(process)
    assert not starter._reporting
    assert process.pidfd == -1
    starter._state.finish_close()
    assert open_descriptors() == before
    await_end_of_kernels(template)
