"""The kernel warmup compiles every kernel that the engine launches, and cannot break the start.

Without a GPU the kernels run in Triton's interpreter, which compiles nothing. There the tests
compare the keys under which Triton would look up compiled kernels.
"""

import gc
import logging
import signal
import sys
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from helpers.engine_cases import tiny_models
from helpers.engine_cases.engine_driver import greedy_reference, run_until_idle
from helpers.kernel_cases.kernel_devices import HOPPER
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import create_function_from_signature

from eightfold.engine import CheckpointError, Engine, EngineConfig, SamplingParams
from eightfold.engine import engine as engine_module
from eightfold.engine.execution import gpu_runner
from eightfold.engine.inspection.meta_model import allocate_parameters
from eightfold.engine.loading import checkpoint
from eightfold.engine.startup import kernel_warmup, model_load
from eightfold.engine.startup.dummy_step import dummy_step
from eightfold.kernels.cuda import nvrtc
from eightfold.kernels.layers import linear_many_rows
from eightfold.kernels.triton_launch import multiprocessor_count

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU compiles")
CONFIG = EngineConfig(max_step_tokens=130, max_running=41, max_context=128, page_size=16)
SMALL = replace(CONFIG, max_running=2, max_step_tokens=8, max_context=64, fused=True)
NEW = 3


@pytest.fixture
def by_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the engine as on a GPU, with the kernels in the interpreter."""
    monkeypatch.setattr(engine_module, "uses_kernels", lambda *_: True)
    monkeypatch.setattr(kernel_warmup, "MAX_CHUNK", 72)
    allocator = model_load.parameter_allocator
    monkeypatch.setattr(  # as on a GPU, files are not mapped
        model_load, "parameter_allocator", lambda fused: allocator(fused) or allocate_parameters
    )


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Keys of the launches so far, by the name of the thread that made them.

    Nothing is computed but the input tokens, which modules look up in the embedding.
    """
    found: dict[str, set[str]] = defaultdict(set)
    run = InterpretedFunction.run
    backend = make_backend(GPUTarget("cuda", 90, 32))
    binders: dict[Any, Callable[..., Any]] = {}

    def record(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        if self.fn not in binders:
            kernel = triton.JITFunction(self.fn, **self.kwargs)
            binders[self.fn] = create_function_from_signature(
                kernel.signature, kernel.params, backend
            )
        _, specialization, others = binders[self.fn](*args, **options)
        key = f"{self.fn.__name__} {specialization} {others}"
        found[threading.current_thread().name].add(key)
        if self.fn.__name__ == "fill_sampled_tokens_kernel":
            run(self, *args, grid=grid, warmup=warmup, **options)

    monkeypatch.setattr(InterpretedFunction, "run", record)
    return found


def greedy(new: int = NEW) -> SamplingParams:
    return SamplingParams(temperature=0, max_new_tokens=new, stop_token_ids=())


def prompts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(3, 128, (n,), generator=generator).tolist() for n in lengths]


def serve(engine: Engine) -> None:
    """Run steps of all layouts: prompts alone or beside single tokens, 1 to 40 single tokens."""
    for count in (1, 2, 3, 9, 20, 40):
        for prompt in prompts(*range(20, 20 + count)):
            engine.submit(prompt, greedy())
        run_until_idle(engine)
    for new, prompt in enumerate(prompts(5, 5, 5)):
        engine.submit(prompt, greedy(4 + new))
    for _ in range(2):
        engine.step()
    engine.submit(prompts(90)[0], greedy())
    run_until_idle(engine)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == kernel_warmup.__name__]


def warmup_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kernel-warmup"]


def load_after_warmup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delay loads until the warmup has ended, because the interpreter writes weights back."""
    load = checkpoint.read_tensors

    def delayed(*arguments: Any) -> Any:
        for thread in warmup_threads():
            thread.join()
        return load(*arguments)

    monkeypatch.setattr(checkpoint, "read_tensors", delayed)


@interpreted
@pytest.mark.parametrize("running", [8, 41])
@pytest.mark.parametrize("name", [*tiny_models.FUSED_BUILDERS, "gemma4_e2b", "gpt_oss"])
def test_the_warmup_launches_every_kernel_that_real_steps_launch(
    name: str, running: int, by_interpreter: None, launched: dict[str, set[str]], tmp_path: Path
) -> None:
    tiny_models.save(name, tmp_path)
    engine = Engine(tmp_path, replace(CONFIG, fused=True, max_running=running))
    serve(engine)
    warmup, real = launched.pop("kernel-warmup"), set().union(*launched.values())
    kernels = {key.split()[0] for key in real}
    assert kernels >= {
        "paged_decode_kernel", "paged_prefill_kernel", "search_pass_kernel",
        "draw_candidates_kernel", "block_entropy_kernel",
    }  # fmt: skip
    assert "norm_rope_and_cache_kernel" in kernels
    assert sorted(real - warmup) == []


@interpreted
@pytest.mark.parametrize("context", [2, 3, 64])
@pytest.mark.parametrize("running", [1, 40])
def test_the_largest_dummy_step_fits_the_context(
    running: int, context: int, launched: dict[str, set[str]]
) -> None:
    config = EngineConfig(
        device="cpu", fused=True, max_running=running, max_context=context, page_size=16
    )
    engine = Engine(tiny_models.build("gemma4_one_copy"), config)
    assert engine.max_context == context
    assert any(key.startswith("paged_prefill_kernel") for key in launched["MainThread"])
    scheduled = dummy_step(engine._runner, running, 512, max_context=context).scheduled
    assert sum(entry.count for entry in scheduled) == min(512, running * context)
    assert max(entry.start + entry.count for entry in scheduled) == context
    assert sorted(scheduled, key=lambda entry: entry.count > 1) == scheduled


@interpreted
@pytest.mark.parametrize("running", [1, 2, 16, 64])
def test_a_dummy_step_has_a_chunk_even_if_the_budget_is_one_token_per_sequence(
    running: int, launched: dict[str, set[str]]
) -> None:
    config = EngineConfig(
        device="cpu", fused=True, max_running=running, max_step_tokens=running, page_size=16
    )
    engine = Engine(tiny_models.build("gemma4_one_copy"), config)
    scheduled = dummy_step(engine._runner, running, running).scheduled
    assert sum(entry.count for entry in scheduled) == max(2, running)
    assert scheduled[-1].count == 2  # chunks have kernels of their own, whatever the budget


@interpreted
def test_tokens_after_a_warmup_equal_those_of_generate(
    by_interpreter: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The warmup runs to its end, and leaves the parameters at their addresses."""
    reference = tiny_models.save("gemma4_one_copy", tmp_path)
    load_after_warmup(monkeypatch)
    (prompt,) = prompts(13)
    engine = Engine(tmp_path, SMALL)
    seq = engine.submit(prompt, greedy())
    assert run_until_idle(engine)[seq] == greedy_reference(reference, prompt, NEW)


@interpreted
def test_a_failure_in_the_warmup_is_one_warning(
    by_interpreter: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    reference = tiny_models.save("gemma4_one_copy", tmp_path)
    original = gpu_runner.fill_sampled_tokens

    def broken(*tensors: torch.Tensor) -> torch.Tensor:
        if threading.current_thread().name == "kernel-warmup":
            raise RuntimeError("no such kernel\nand a long listing")
        return original(*tensors)

    monkeypatch.setattr(gpu_runner, "fill_sampled_tokens", broken)
    with caplog.at_level(logging.WARNING):
        engine = Engine(tmp_path, SMALL)
    assert messages(caplog) == [
        "the kernels are compiled after the load, not beside it: RuntimeError: no such kernel"
    ]
    (prompt,) = prompts(9)
    seq = engine.submit(prompt, greedy())
    assert run_until_idle(engine)[seq] == greedy_reference(reference, prompt, NEW)


@pytest.mark.parametrize("error", [CheckpointError("cut short"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=cuda)])
def test_a_load_that_fails_ends_the_warmup(
    device: str, error: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The warmup stops after the step that it is in, and its runner and memory are freed."""
    tiny_models.save("gemma4_one_copy", tmp_path)
    if device == "cpu":
        monkeypatch.setattr(engine_module, "uses_kernels", lambda *_: True)
    begun = threading.Event()
    stops: list[threading.Event] = []
    runners: list[weakref.ref[Any]] = []
    steps = []
    run = kernel_warmup._run

    def record_stop(*arguments: Any) -> None:
        stops.append(arguments[-1])
        run(*arguments)

    def wait_for_stop(runner: Any, _: Any) -> None:
        runners.append(weakref.ref(runner))
        steps.append("launch")
        begun.set()
        assert stops[0].wait(60)  # the step outlasts the failure of the load

    def fail(*_: Any) -> None:
        assert begun.wait(60)
        raise error

    monkeypatch.setattr(kernel_warmup, "_run", record_stop)
    monkeypatch.setattr(gpu_runner.GpuRunner, "launch", wait_for_stop)
    monkeypatch.setattr(gpu_runner.GpuRunner, "compile", lambda *_: steps.append("compile"))
    monkeypatch.setattr(checkpoint, "read_tensors", fail)
    gc.collect()
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    with pytest.raises(type(error)):
        Engine(tmp_path, replace(SMALL, device=device))
    assert warmup_threads() == []
    assert steps == ["launch"]
    error.__traceback__ = None  # its frames hold the model
    gc.collect()
    assert [runner() for runner in runners] == [None]
    assert (torch.cuda.memory_allocated() if device == "cuda" else 0) == before


def test_an_interrupt_while_the_warmup_is_waited_for_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, ended = threading.Event(), threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def run(*arguments: Any) -> None:
        begun.set()
        assert arguments[-1].wait(60), "the warmup is not stopped"
        ended.set()

    model: Any = None
    monkeypatch.setattr(kernel_warmup, "_run", run)

    def load() -> None:
        with kernel_warmup.kernel_warmup(model, model, CONFIG, False):
            assert begun.wait(60)
            threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()

    # Processes that a shell starts in the background ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            load()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.is_set()
    assert warmup_threads() == []


def test_an_interrupt_while_the_warmup_starts_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    start, ended = threading.Thread.start, threading.Event()

    def interrupted_start(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    def run(*arguments: Any) -> None:
        assert arguments[-1].wait(60), "the warmup is not stopped"
        ended.set()

    model: Any = None
    monkeypatch.setattr(kernel_warmup, "_run", run)
    monkeypatch.setattr(threading.Thread, "start", interrupted_start)
    with pytest.raises(KeyboardInterrupt), kernel_warmup.kernel_warmup(model, model, CONFIG, False):
        pytest.fail("the body runs")
    assert ended.is_set()
    assert warmup_threads() == []


@interpreted
def test_there_is_no_warmup_without_kernels_or_without_a_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernel_warmup, "_run", lambda *_: pytest.fail("a warmup runs"))
    model = tiny_models.save("gemma4_one_copy", tmp_path)
    Engine(tmp_path, EngineConfig(device="cpu"))
    Engine(tmp_path, replace(SMALL, device="cpu"))
    Engine(model, SMALL)


@cuda
@pytest.mark.parametrize("name", ["gemma4_one_copy", "gemma4_wide", "gemma4_e2b", "qwen3"])
def test_no_kernel_is_compiled_after_the_load(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny_models.build(name).bfloat16().save_pretrained(tmp_path)
    # The linear layers of the largest step fill their tiles; others of more than 64 rows do not.
    programs = multiprocessor_count(torch.device("cuda"))
    monkeypatch.setattr(
        linear_many_rows,
        "MIN_UTILIZATION",
        linear_many_rows.tile_utilization(200, 768, True, programs),
    )
    forget_kernels()
    compiled: list[str] = []
    make, runtime = engine_module.make_sized_runner, triton.knobs.runtime
    loaded: list[tuple[int, int]] = []

    def make_sized_runner(*arguments: Any) -> Any:
        loaded.append((len(compiled), nvrtc.load_kernel.cache_info().misses))
        return make(*arguments)

    monkeypatch.setattr(engine_module, "make_sized_runner", make_sized_runner)
    monkeypatch.setattr(
        runtime, "jit_post_compile_hook", lambda **given: compiled.append(given["repr"])
    )
    # Eight rows are one size of layer_tail; steps with a prompt have other sizes.
    running = 8 if name == "gemma4_wide" else 41
    config = replace(CONFIG, max_step_tokens=300, max_running=running, memory_fraction=0.01)
    serve(Engine(tmp_path, config))
    ((triton_kernels, nvrtc_kernels),) = loaded
    assert triton_kernels >= 10
    # flash-attn, if it is installed, is tried out after the load.
    assert [name for name in compiled[triton_kernels:] if "gather_windows_kernel" not in name] == []
    assert nvrtc.load_kernel.cache_info().misses == nvrtc_kernels
    if name == "gemma4_wide" and HOPPER:
        assert nvrtc_kernels > 0


def forget_kernels() -> None:
    """Forget all compiled kernels, as in a new process."""
    for name, module in list(sys.modules.items()):
        if name.startswith("eightfold.kernels."):
            for value in vars(module).values():
                if isinstance(value, triton.JITFunction):
                    value.device_caches.clear()
    nvrtc.load_kernel.cache_clear()


@cuda
def test_there_is_no_warmup_without_free_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reference = tiny_models.build("gemma4_one_copy").bfloat16()
    reference.save_pretrained(tmp_path)
    monkeypatch.setattr(kernel_warmup, "MIN_FREE_BYTES", 1 << 50)
    monkeypatch.setattr(kernel_warmup, "_steps", lambda *_: pytest.fail("a warmup runs"))
    with caplog.at_level(logging.INFO, kernel_warmup.__name__):
        Engine(tmp_path, replace(CONFIG, memory_fraction=0.01))
    assert messages(caplog) == [
        "no kernels are compiled beside the load: too little memory is free"
    ]
