"""Starts the parts of a solver: kernel pool, chat format, engine and sampling parameters."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .attempts.backend_interfaces import EngineLike, PoolLike
from .attempts.engine_loop import EngineLoop
from .attempts.problem_plan import SharedParts
from .chat.chat_protocol import ChatProtocol
from .chat.format_registry import without_tool
from .chat.template_options import TemplateOptions
from .model_defaults import ModelInputs
from .models.tokenizer_loading import load_tokenizer, load_usable_protocol
from .solver_config import MAX_ATTEMPTS, SolverConfig, SolverError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from eightfold.engine import Preload, SamplingParams

REWIND_TOKENS = 32
"""Tokens that a model may write behind its code before it is stopped, without being recomputed."""

SMALL_MODEL_BYTES = 256 << 20
"""Size of the weights below which one thread runs a model fastest."""


def start_parts(
    config: SolverConfig,
    inputs: ModelInputs,
    stack: ExitStack,
    *,
    engine: EngineLike | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    pool: PoolLike | None = None,
    reading: Preload | None = None,
) -> SharedParts:
    """Start the parts that are not given.

    Kernels start in processes of their own, and a thread reads the weights into the OS page cache,
    while this function imports libraries and loads the model.

    Args:
        config: settings of the solver.
        inputs: what was read from the model folder.
        stack: receives what must be closed when the solver is.
        engine, tokenizer, pool: ready-made parts.
        reading: a preload of the model folder that is in progress.

    Raises:
        SolverError: if the tokenizer cannot be loaded or a setting does not suit the machine.
        ProtocolError: if the chat template cannot be used.
        eightfold.engine.ModelError: if the checkpoint cannot be loaded.
    """
    if reading is None and engine is None:
        reading = _start_reading(_folder(inputs))
    if reading is not None:
        stack.callback(reading.stop)
    if pool is None:
        pool = _start_pool(config, stack)
    executor = ThreadPoolExecutor(MAX_ATTEMPTS, thread_name_prefix="tool")
    stack.callback(executor.shutdown, wait=False)
    if tokenizer is None:
        tokenizer = load_tokenizer(_folder(inputs))
    protocol = _make_protocol(config, inputs, tokenizer)
    if engine is None:
        engine = _start_engine(config, _folder(inputs))
    loop = EngineLoop(engine)
    stack.callback(loop.close)
    if reading is not None:
        reading.stop()  # the engine has read all files
    return SharedParts(loop, protocol, pool, executor, _sampling_params(config, inputs, protocol))


def _folder(inputs: ModelInputs) -> Path:
    if inputs.folder is None:
        raise AssertionError("A model folder is needed unless engine and tokenizer are given.")
    return inputs.folder


def _start_reading(folder: Path) -> Preload:
    """Fill the OS page cache while libraries are imported and kernels start."""
    from eightfold.engine import Preload

    return Preload(folder)


def _start_pool(config: SolverConfig, stack: ExitStack) -> PoolLike:
    from eightfold.sandbox import KernelPool, PoolConfig

    pool_config = PoolConfig(
        size=config.kernels, timeout=config.tool_timeout, text_limit=config.output_limit
    )
    pool = KernelPool(pool_config)
    stack.callback(pool.close)
    return pool


def _make_protocol(
    config: SolverConfig, inputs: ModelInputs, tokenizer: PreTrainedTokenizerBase
) -> ChatProtocol:
    prompts = inputs.prompts.filled(
        low=config.low,
        high=config.high,
        seconds=f"{config.tool_timeout:g}",
        characters=config.output_limit,
    )
    options = TemplateOptions(config.reasoning_effort, config.tool_timeout)
    protocol = load_usable_protocol(tokenizer, prompts, sorted(inputs.end_token_ids), options)
    if config.tool:
        return protocol
    return without_tool(protocol, "The attempts have no tool, because the setting tool is False.")


def _start_engine(config: SolverConfig, folder: Path) -> EngineLike:
    from eightfold.engine import Engine, EngineConfig, ModelError

    _limit_threads(folder)
    try:
        settings = config.engine or EngineConfig(
            max_running=config.running, speculate=config.speculate
        )
        return Engine(folder, replace(settings, rewind_tokens=REWIND_TOKENS))
    except ModelError:
        raise
    except ValueError as error:  # a setting that does not suit this machine or model
        raise SolverError(str(error)) from error


def _limit_threads(folder: Path) -> None:
    """Run a small model on one thread, unless OMP_NUM_THREADS is set.

    Its layers are too short to be divided: on two cores a second thread made a step slower, and the
    Python kernels need that core (docs/notebook/log.md).
    """
    import torch

    from eightfold.engine.loading.safetensors_headers import weight_bytes

    if weight_bytes(folder) < SMALL_MODEL_BYTES and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def _sampling_params(
    config: SolverConfig, inputs: ModelInputs, protocol: ChatProtocol
) -> SamplingParams:
    from eightfold.engine import SamplingParams

    return SamplingParams(
        **inputs.sampling,
        max_new_tokens=config.max_tokens,
        pause_token_ids=protocol.pause_token_ids,
        stop_token_ids=(),
        entropy=config.entropy,
    )
