"""Starts the parts of a solver: kernel pool, chat format, engine and sampling parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .attempts.backend_interfaces import EngineLike, PoolLike
from .attempts.engine_loop import EngineLoop
from .attempts.problem_plan import SharedParts
from .chat.chat_protocol import ChatProtocol
from .chat.format_registry import without_tool
from .chat.template_options import TemplateOptions
from .devices.device_list import choose_devices
from .devices.engine_process import EngineProcess
from .devices.thread_count import limit_threads
from .model_defaults import ModelInputs
from .models.tokenizer_loading import load_tokenizer, load_usable_protocol
from .solver_config import MAX_ATTEMPTS, MAX_RUNNING, SolverConfig, SolverError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from eightfold.engine import EngineConfig, Preload, SamplingParams

REWIND_TOKENS = 32
"""Tokens that a model may write behind its code before it is stopped, without being recomputed."""


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
        SolverError: if the tokenizer cannot be loaded, a setting does not suit the machine, or it
            lacks a device.
        ProtocolError: if the chat template cannot be used.
        eightfold.engine.ModelError: if the checkpoint cannot be loaded.
    """
    if reading is None and engine is None:
        reading = _start_reading(_folder(inputs))
    if reading is not None:
        stack.callback(reading.stop)
    if pool is None:
        pool = _start_pool(config, stack)
    devices = choose_devices(config) if engine is None else ()  # may import torch
    processes = _start_processes(config, devices, _folder(inputs), stack) if devices else ()
    executor = ThreadPoolExecutor(MAX_ATTEMPTS, thread_name_prefix="tool")
    stack.callback(executor.shutdown, wait=False)
    if tokenizer is None:
        tokenizer = load_tokenizer(_folder(inputs))
    protocol = _make_protocol(config, inputs, tokenizer)
    engines = processes or (engine or _start_engine(config, _folder(inputs)),)
    loops = []
    for one in engines:
        if isinstance(one, EngineProcess):
            with _setting_errors():
                one.ready()
        loops.append(EngineLoop(one))
        stack.callback(loops[-1].close)
    if reading is not None:
        reading.stop()  # the engines have read all files
    sampling = _sampling_params(config, inputs, protocol)
    return SharedParts(tuple(loops), protocol, pool, executor, sampling)


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


def _start_processes(
    config: SolverConfig, devices: Sequence[str], folder: Path, stack: ExitStack
) -> tuple[EngineProcess, ...]:
    """Start an engine process for each device; each reads the files that this process preloads."""
    settings = _engine_config(config)
    with _setting_errors():
        # Attempts are dealt out evenly, so each engine runs its share of them.
        most = config.engine.max_running if config.engine else config.attempts * config.problems
        running = min(MAX_RUNNING, -(-most // len(devices)))
        settings = replace(settings, max_running=running)
    processes = []
    for number, device in enumerate(devices):
        kind = device.partition(":")[0]
        processes.append(EngineProcess(folder, replace(settings, device=kind), device, number))
        stack.callback(processes[-1].close)
    return tuple(processes)


def _start_engine(config: SolverConfig, folder: Path) -> EngineLike:
    from eightfold.engine import Engine

    limit_threads(folder)
    with _setting_errors():
        return Engine(folder, _engine_config(config))


def _engine_config(config: SolverConfig) -> EngineConfig:
    from eightfold.engine import EngineConfig

    with _setting_errors():
        settings = config.engine or EngineConfig(
            max_running=config.running, speculate=config.speculate
        )
        return replace(settings, rewind_tokens=REWIND_TOKENS)


@contextmanager
def _setting_errors() -> Iterator[None]:
    """Turn an error about a setting that does not suit machine or model into a `SolverError`."""
    from eightfold.engine import ModelError

    try:
        yield
    except (ModelError, SolverError):
        raise
    except ValueError as error:
        raise SolverError(str(error)) from error


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
