"""Wrong options of `serve` are refused before a model is loaded (1 s)."""

from __future__ import annotations

import socket

import pytest

from eightfold.solver.cli import main


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "give --api-key"),
        (["--host", "::"], "give --api-key"),
        (["--port", "70000"], "from 0 to 65535"),
        (["--running", "0"], "--running must be from 1"),
        (["--parallel", "0"], "--parallel must be at least 1"),
        (["--api-key", " "], "--api-key is empty"),
        (["--host", "no such host", "--api-key", "k"], "cannot listen on"),
        (["--model", "/nowhere"], "/nowhere"),
    ],
)
def test_wrong_options_give_one_sentence(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_taken_port_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in capsys.readouterr().err
