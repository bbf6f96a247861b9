"""Loads a model folder's tokenizer with its chat templates, and the protocol of one that works."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from eightfold.common.error_text import one_line

from ..chat.chat_protocol import ChatProtocol, ProtocolError
from ..chat.format_registry import load_protocol
from ..chat.prompt_texts import PromptChanges, Prompts
from ..chat.template_options import NO_OPTIONS, TemplateOptions
from ..solver_config import SolverError
from .template_files import (
    DEFAULT,
    TEMPLATE_FILE,
    TEMPLATE_FOLDER,
    TOOL_USE,
    Templates,
    read_templates,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a model folder, with all chat templates that the folder holds.

    A template that cannot be read is left out with a warning if there is another one.

    Raises:
        SolverError: if the tokenizer cannot be loaded, or none of its chat templates be read.
    """
    templates = read_templates(folder)
    if templates.faults and not templates.texts:
        raise SolverError(f"{'; '.join(templates.faults.values())}; copy the chat template again.")
    for fault in templates.faults.values():
        logger.warning("A chat template is left out: %s.", fault)
    try:
        tokenizer = _load_readable(folder, templates)
    except Exception as error:  # transformers raises whatever it meets in the files
        _check_config(folder)  # which transformers reads first
        reason = shorten(str(error), 300, placeholder=" ...").rstrip(".") or type(error).__name__
        raise SolverError(f"The tokenizer in {folder} cannot be loaded: {reason}.") from error
    if templates.texts:
        alone = list(templates.texts) == [DEFAULT]
        tokenizer.chat_template = templates.texts[DEFAULT] if alone else templates.texts
    return tokenizer


def _load_readable(folder: Path, templates: Templates) -> PreTrainedTokenizerBase:
    """Load the tokenizer; transformers would fail at a template that it cannot read."""
    from transformers import AutoTokenizer

    if not templates.faults:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with tempfile.TemporaryDirectory(prefix="eightfold-tokenizer-") as place:
        for name in os.listdir(folder):
            if name not in (TEMPLATE_FILE, TEMPLATE_FOLDER):
                os.symlink((folder / name).absolute(), Path(place) / name)
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    tokenizer.name_or_path = str(folder)
    return tokenizer


def _check_config(folder: Path) -> None:
    """Raise a `SolverError` if it is config.json that cannot be used."""
    from eightfold.engine.loading.checkpoint import parse_config
    from eightfold.engine.model_errors import CheckpointError

    try:
        parse_config(folder)
    except CheckpointError as error:
        raise SolverError(str(error)) from error


def load_usable_protocol(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts | PromptChanges,
    end_ids: Sequence[int],
    options: TemplateOptions = NO_OPTIONS,
) -> ChatProtocol:
    """Return the chat protocol; if one of several chat templates fails, that of another one.

    The tokenizer keeps only the template that works then, and a warning names the other one.

    Args:
        tokenizer: a Hugging Face tokenizer with one or several chat templates.
        prompts: all texts of the prompt, or those that replace the format's.
        end_ids: end tokens of the checkpoint, besides the tokenizer's own one.
        options: options of the prompt that only some chat templates have.

    Raises:
        ProtocolError: if no chat template can be used.
    """
    templates = tokenizer.chat_template
    try:
        return load_protocol(tokenizer, prompts, end_ids, options)
    except ProtocolError as error:
        if not isinstance(templates, dict):
            raise
        failed = TOOL_USE if TOOL_USE in templates else DEFAULT
        for name in (TOOL_USE, DEFAULT):
            if name not in templates:
                continue
            tokenizer.chat_template = templates[name]
            try:
                protocol = load_protocol(tokenizer, prompts, end_ids, options)
            except ProtocolError:
                continue
            logger.warning(
                "The chat template %s serves, because %s cannot be used: %s",
                name,
                failed if failed != name else DEFAULT,
                one_line(str(error)),
            )
            return protocol
        tokenizer.chat_template = templates
        raise
