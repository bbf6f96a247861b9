"""Reads how a checkpoint's weights are quantized from its configuration, and refuses the rest.

Imports neither torch nor transformers, so that a machine can be sized from a config.json alone.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..model_errors import UnsupportedModelError
from .compressed_tensors import LINEAR, UnreadFormatError, read_groups
from .linear_format import LinearFormat
from .transformers_formats import excluded_modules, read_awq, read_fp8, read_gptq

MXFP4 = "mxfp4"
MXFP4_MODEL_TYPES = frozenset({"gpt_oss"})
# Of transformers' Mxfp4Config; "dequantize" says what transformers does with the weights.
MXFP4_KEYS = frozenset({"quant_method", "modules_to_not_convert", "dequantize"})
READERS = {"fp8": read_fp8, "gptq": read_gptq, "awq": read_awq}
"""Of transformers' own methods, whose linear layers are all stored in one format."""

COMPRESSED_TENSORS = "compressed-tensors"
ROUNDED_WHILE_LOADING = "rounded while loading"
READ = (
    "use one in bfloat16, float16 or float32, in FP8 or in 4 bits as compressed-tensors, GPTQ or "
    "AWQ store them, or gpt-oss with its experts in MXFP4"
)
PLAIN_NAME = re.compile(r"[\w.-]+")
# Other names that checkpoints have for parts of modules' names.
_PARTS = (
    (re.compile(r"^model\."), "model.language_model."),
    (re.compile(r"^model\."), "language_model.model."),
    (re.compile(r"^lm_head"), "language_model.lm_head"),
    (re.compile(r"\.mlp\.(?=gate$|experts\b)"), ".block_sparse_moe."),  # Mixtral
)


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the weights of a checkpoint are stored.

    Attributes:
        method: :data:`MXFP4` (the experts' matrices are 4-bit floats in blocks of 32), or a method
            that quantizes linear layers, of which :data:`ROUNDED_WHILE_LOADING` is the engine's own
            and reads an unquantized checkpoint.
        kept: names of modules that are not quantized: the beginning of a module's name up to a
            dot, the same as a regular expression, or its end; of compressed-tensors as in
            ``linear``.
        linear: the formats of linear layers, each with the modules that have it: names, "re:" with
            a regular expression, or "Linear" for all. The first that names a module counts.
    """

    method: str
    kept: tuple[str, ...] = ()
    linear: tuple[tuple[tuple[str, ...], LinearFormat], ...] = ()

    def converts(self, module: str) -> bool:
        """Return whether the weights of a module, given by name, are stored quantized."""
        matches = _is_target if self.method == COMPRESSED_TENSORS else _is_kept
        return not any(matches(self.kept, name) for name in stored_names(module))

    def linear_format(self, module: str) -> LinearFormat | None:
        """Return how a linear layer is stored, given by name; ``None`` if as it is."""
        if not self.converts(module):
            return None
        for targets, stored in self.linear:
            if LINEAR in targets or any(_is_target(targets, name) for name in stored_names(module)):
                return stored
        return None

    def __str__(self) -> str:
        formats = dict.fromkeys(str(stored) for _, stored in self.linear)
        return f"{self.method} ({', '.join(formats)})" if formats else self.method


def fp8_while_loading() -> Quantization:
    """Return the quantization of a checkpoint that is rounded to FP8 while it is loaded.

    The head stays as it is, and so do the routers of experts, which are small.
    """
    kept = ("lm_head", r".*\brouter\b.*", r".*\bmlp\.gate")
    return Quantization(ROUNDED_WHILE_LOADING, kept, (((LINEAR,), LinearFormat("fp8")),))


def stored_names(module: str) -> list[str]:
    """Return the names that a module of a text model may have in a checkpoint."""
    return [module, *(part.sub(new, module) for part, new in _PARTS if part.search(module))]


def _is_kept(kept: tuple[str, ...], module: str) -> bool:
    if module.endswith(kept):
        return True
    parents, patterns = _kept_parts(kept)
    return module.startswith(parents) or any(pattern.match(module) for pattern in patterns)


def _is_target(targets: tuple[str, ...], module: str) -> bool:
    names, patterns = _target_parts(targets)
    return module in names or any(pattern.match(module) for pattern in patterns)


# Mixtures of experts ask for thousands of modules, and their configurations name hundreds.
@lru_cache
def _kept_parts(kept: tuple[str, ...]) -> tuple[tuple[str, ...], list[re.Pattern[str]]]:
    """Return beginnings of the names of modules that are not quantized, and expressions for them.

    A plain name is no expression, so that its dots are dots.
    """
    parents = tuple(f"{name.removesuffix('.')}." for name in kept)
    given = [each for each in kept if not PLAIN_NAME.fullmatch(each)]
    return parents, _compiled(rf"(?:{each})(?:(?<=\.)|(?=\.|$))" for each in given)


@lru_cache
def _target_parts(targets: tuple[str, ...]) -> tuple[frozenset[str], list[re.Pattern[str]]]:
    """Return names of modules, and regular expressions for them."""
    marked = [each.removeprefix("re:") for each in targets if each.startswith("re:")]
    return frozenset(targets), _compiled(marked)


def _compiled(given: Iterable[str]) -> list[re.Pattern[str]]:
    """Compile regular expressions; names with characters that make them none are left out."""
    found = []
    for each in given:
        try:
            found.append(re.compile(each))
        except re.error:
            continue
    return found


def read_quantization(config: Mapping[str, Any]) -> Quantization | None:
    """Return how a checkpoint is quantized; ``None`` if it is not.

    Args:
        config: values of config.json, of the whole model or of its text part.

    Raises:
        UnsupportedModelError: if it is quantized in any way but those of :class:`Quantization`.
    """
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else config
    entry = config.get("quantization_config", text.get("quantization_config"))
    if entry is None:
        return None
    name = str(text.get("model_type") or "model")
    if not isinstance(entry, Mapping):
        raise UnsupportedModelError(
            f"The quantization_config of this {name} checkpoint is not a JSON object; copy its "
            "config.json again."
        )
    try:
        return _read_entry(name, entry)
    except UnreadFormatError as error:
        raise UnsupportedModelError(
            f"This {name} checkpoint is quantized as {str(entry.get('quant_method'))[:60]!r} with "
            f"{str(error)[:200]}, which the engine does not run; {READ}."
        ) from error


def _read_entry(name: str, entry: Mapping[str, Any]) -> Quantization:
    method = entry.get("quant_method")
    kept = entry.get("modules_to_not_convert") or entry.get("ignored_layers")
    if method == MXFP4 and name in MXFP4_MODEL_TYPES:
        unknown = sorted(map(str, entry.keys() - MXFP4_KEYS))
        if unknown:
            raise UnreadFormatError(f"the option {unknown[0]}")
        return Quantization(MXFP4, _names(name, "modules_to_not_convert", kept))
    if method == COMPRESSED_TENSORS:
        ignored = _names(name, "ignore", entry.get("ignore"))
        return Quantization(COMPRESSED_TENSORS, ignored, read_groups(entry))
    if isinstance(method, str) and method in READERS:
        stored = READERS[method](entry)
        # transformers leaves the head alone, which these methods do not say.
        kept = ("lm_head", *_names(name, "modules_to_not_convert", kept))
        if method == "gptq":
            kept += excluded_modules(entry)
        return Quantization(str(method), kept, (((LINEAR,), stored),))
    said = "without a quant_method" if method is None else f"as {str(method)[:60]!r}"
    raise UnsupportedModelError(
        f"This {name} checkpoint is quantized {said}, which the engine does not run; {READ}."
    )


def _names(model: str, key: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(
        isinstance(each, str) and each for each in value
    ):
        raise UnsupportedModelError(
            f"{key} in the quantization_config of this {model} checkpoint must be a list of names; "
            "copy its config.json again."
        )
    return tuple(value)
