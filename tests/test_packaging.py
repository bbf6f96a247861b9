"""What the installed distribution holds."""

import importlib
import importlib.metadata
from pathlib import Path

import pytest

from eightfold.demo import model_path

PARTS = ("engine", "kernels", "sandbox", "solver", "demo")


def test_nothing_is_installed_outside_the_namespace() -> None:
    # A build leaves an egg-info in the checkout; what is installed has a dist-info.
    found = [d for d in importlib.metadata.distributions(name="eightfold") if d.read_text("RECORD")]
    assert found, "eightfold is not installed"
    files = found[0].files or []
    assert files
    tops = {file.parts[0] for file in files if not file.parts[0].startswith((".", "__"))}
    tops = {top for top in tops if not top.endswith((".dist-info", ".pth", ".py"))}
    assert tops <= {"eightfold"}, "a top-level kernels or engine would hide another's package"


@pytest.mark.parametrize("part", PARTS)
def test_parts_import_and_are_typed(part: str) -> None:
    module = importlib.import_module(f"eightfold.{part}")
    assert module.__doc__
    assert (Path(module.__path__[0]) / "py.typed").is_file()


def test_the_bundled_model_is_there_in_small_shards() -> None:
    folder = model_path()
    shards = sorted(folder.glob("*.safetensors"))
    assert shards
    assert all(shard.stat().st_size < 16 * 2**20 for shard in shards)
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / name).is_file()
