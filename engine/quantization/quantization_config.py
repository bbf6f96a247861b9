"""Reads how a checkpoint's weights are quantized from its configuration, and refuses the rest.

Imports neither torch nor transformers, so that a machine can be sized from a config.json alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..model_errors import UnsupportedModelError

MXFP4 = "mxfp4"
MXFP4_MODEL_TYPES = frozenset({"gpt_oss"})
# Of transformers' Mxfp4Config; "dequantize" says what transformers does with the weights.
MXFP4_KEYS = frozenset({"quant_method", "modules_to_not_convert", "dequantize"})


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the weights of a checkpoint are stored.

    Attributes:
        method: :data:`MXFP4`: the experts' matrices are 4-bit floats in blocks of 32.
        kept: names of modules that are not quantized, as transformers matches them: the beginning
            of a module's name up to a dot, the same as a regular expression, or its end.
    """

    method: str
    kept: tuple[str, ...] = ()

    def converts(self, module: str) -> bool:
        """Return whether the weights of a module, given by name, are stored quantized."""
        return not any(_matches(pattern, module) for pattern in self.kept)


def _matches(pattern: str, module: str) -> bool:
    if module.endswith(pattern) or module.startswith(f"{pattern}."):
        return True
    try:
        return re.match(rf"(?:{pattern})(?:(?<=\.)|(?=\.|$))", module) is not None
    except re.error:  # a plain name with characters that mean something else there
        return False


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
    method = entry.get("quant_method")
    if method != MXFP4 or name not in MXFP4_MODEL_TYPES:
        said = "without a quant_method" if method is None else f"as {str(method)[:60]!r}"
        raise UnsupportedModelError(
            f"This {name} checkpoint is quantized {said}, which the engine does not run; use one "
            "in bfloat16, float16 or float32, or gpt-oss with its experts in MXFP4."
        )
    unknown = sorted(map(str, entry.keys() - MXFP4_KEYS))
    if unknown:
        raise UnsupportedModelError(
            f"This {name} checkpoint is quantized as 'mxfp4' with the option {unknown[0]!r}, which "
            "the engine does not know; use the checkpoint as it was released."
        )
    return Quantization(MXFP4, _names(name, entry.get("modules_to_not_convert")))


def _names(model: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(
        isinstance(each, str) and each for each in value
    ):
        raise UnsupportedModelError(
            f"modules_to_not_convert in the quantization_config of this {model} checkpoint must be "
            "a list of names; copy its config.json again."
        )
    return tuple(value)
