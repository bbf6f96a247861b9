"""Recognizes weights in formats that are not loaded, and says how to convert them.

Works on the names of files alone, so that it serves for folders and for listings of repositories.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from ..safetensors_headers import INDEX_FILE, SINGLE_FILE

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
GPT_OSS_TYPES = "dtypes.json"  # beside gpt-oss's weights in their authors' own layout
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.safetensors")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")

OTHER_FRAMEWORKS = {
    ".h5": "TensorFlow",
    ".msgpack": "Flax",
    ".ckpt": "TensorFlow or Lightning",
    ".onnx": "ONNX",
    ".npz": "NumPy or MLX",
    ".tflite": "TensorFlow Lite",
    ".task": "MediaPipe",
    ".litertlm": "LiteRT",
    ".mlmodel": "Core ML",
    ".mlpackage": "Core ML",
    ".engine": "TensorRT",
}
"""Formats by suffix that transformers cannot convert."""


def explain_names(names: Sequence[str], place: str) -> str | None:
    """Return one sentence about a model folder without weights that can be loaded.

    Args:
        names: names of the files in it, those in sub-folders with the folder's name.
        place: the folder, or the id of a repository, as transformers takes them.

    Returns:
        What the folder holds instead and how to convert it, or None if nothing is recognized.
    """
    top = sorted(name for name in names if "/" not in name)
    adapters = [name for name in ADAPTER_WEIGHTS if name in top]
    if adapters or ADAPTER_CONFIG in top:
        return _explain_adapter(place)
    tensors = [name for name in top if name.endswith(".safetensors")]
    if tensors and (SINGLE_FILE in top or INDEX_FILE in top):
        return (
            f"{place} is not a model folder: it has weights, but no config.json; copy the model's "
            "config.json there."
        )
    if tensors:
        return _explain_safetensors(tensors, place)
    # Repositories of GGUF often have a folder for each quantization.
    ggufs = [name for name in (*top, *sorted(names)) if name.lower().endswith(".gguf")]
    if ggufs:
        return _explain_gguf(ggufs, place)
    pickles = [name for name in top if name.startswith("pytorch_model") and ".bin" in name]
    if pickles:
        return (
            f"{place} has no .safetensors file, only PyTorch's .bin; convert it in Python: "
            + _converted(f'"{place}"')
            + "."
        )
    if "params.json" in top and any(name.endswith(".pth") for name in top):
        return (
            f"{place} holds Llama's original weights (.pth), not a Hugging Face checkpoint; give "
            "the version with config.json and .safetensors files, whose name often ends in -hf."
        )
    if "model_index.json" in top:
        return f"{place} is a diffusers pipeline, not a language model; give a language model."
    for name in top:
        suffix = Path(name).suffix.lower()
        if suffix in OTHER_FRAMEWORKS:
            return (
                f"{place} holds weights only in the format of {OTHER_FRAMEWORKS[suffix]} ({name}), "
                "which cannot be converted here; give the checkpoint with .safetensors files that "
                "it was made from."
            )
    loose = [name for name in top if name.endswith(PICKLE_SUFFIXES) and not _is_training(name)]
    if loose:
        return (
            f"{place} has no .safetensors file, and {loose[0]} is not the name of a Hugging Face "
            "checkpoint's weights; load them into their model class in Python, and write them with "
            'its save_pretrained("NEW").'
        )
    return None


def explain_file(file: Path) -> str:
    """Return one sentence about a single file that was given instead of a model folder."""
    name, folder, suffix = file.name, file.parent, file.suffix.lower()
    if suffix == ".gguf":
        return _explain_gguf([name], str(folder), single=True)
    if suffix == ".safetensors":
        if name in ADAPTER_WEIGHTS:
            return _explain_adapter(str(folder))
        if (folder / "config.json").is_file():
            return f"{file} is one file of a checkpoint; give its folder, {folder}."
        return (
            f"{file} holds tensors alone; give a folder with this file as model.safetensors beside "
            "the model's config.json and tokenizer.json."
        )
    if suffix in PICKLE_SUFFIXES:
        return (
            f"{file} is a PyTorch file, which is not loaded; give the folder of the checkpoint, "
            "converted in Python: " + _converted(f'"{folder}"') + "."
        )
    if suffix in ARCHIVE_SUFFIXES:
        return f"{file} is an archive; unpack it, and give the folder with the config.json."
    if suffix in OTHER_FRAMEWORKS:
        return (
            f"{file} is in the format of {OTHER_FRAMEWORKS[suffix]}, which cannot be converted "
            "here; give the folder with .safetensors files that it was made from."
        )
    return f"{file} is a file; give the folder of a checkpoint, which holds its config.json."


def explain_own_layout(folder: Path) -> str | None:
    """Return one sentence about a folder in gpt-oss's own layout; None if it is not in it.

    Its repositories keep such a copy of the weights in the folder `original`.
    """
    if not (folder / GPT_OSS_TYPES).is_file():
        return None
    return (
        f"{folder} holds gpt-oss's weights in its authors' own layout; give the folder above it, "
        "or download the Hugging Face checkpoint, whose files are model-00000-of-*.safetensors."
    )


def _explain_adapter(place: str) -> str:
    base = "BASE"
    try:
        content = json.loads((Path(place) / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base = str(content["base_model_name_or_path"] or base)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # a listing without files, or an adapter that does not say what it adapts
    of_base = "" if base == "BASE" else f" of {base}"
    return (
        f"{place} is only a LoRA adapter{of_base}; merge it into its base model in Python, with "
        "the package peft: PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("
        f'"{base}"), "{place}").merge_and_unload().save_pretrained("NEW"), and the base\'s '
        'tokenizer with AutoTokenizer.from_pretrained(...).save_pretrained("NEW").'
    )


def _explain_safetensors(names: list[str], place: str) -> str:
    shards = [name for name in names if SHARD.fullmatch(name)]
    if any(name.startswith("consolidated") for name in names):
        return (
            f"{place} holds its weights only as {names[0]}, in Mistral's own format; give a folder "
            "with the model's config.json and its files model*.safetensors."
        )
    if shards:
        return (
            f"{place} has {shards[0]} but no model.safetensors.index.json, which says what is in "
            "which file; download it from where the files came from."
        )
    if len(names) == 1:
        return (
            f"{place} holds weights, but not under the name that is loaded; rename {names[0]} to "
            "model.safetensors, beside the model's config.json."
        )
    return (
        f"{place} holds {names[0]} and other .safetensors files, but neither model.safetensors nor "
        "model.safetensors.index.json; load them into their model class in Python, and write them "
        'with its save_pretrained("NEW").'
    )


def _explain_gguf(names: list[str], place: str, *, single: bool = False) -> str:
    first = f"{place}/{names[0]} is" if single else f"{place} holds a model only as {names[0]},"
    return (
        f"{first} in llama.cpp's format GGUF; give the checkpoint with .safetensors files that it "
        "was made from, or convert it in Python, with the package gguf: "
        + _converted(f'"{place}", gguf_file="{names[0]}"')
        + "."
    )


def _converted(arguments: str) -> str:
    """Return the calls that write a safetensors checkpoint with its tokenizer."""
    return (
        f'AutoModelForCausalLM.from_pretrained({arguments}).save_pretrained("NEW"), and the same '
        "with AutoTokenizer"
    )


def _is_training(name: str) -> bool:
    """Return whether a file belongs to a trainer's state, as in a checkpoint folder of its own."""
    return name.startswith(("training_args", "optimizer", "scheduler", "rng_state", "scaler"))
