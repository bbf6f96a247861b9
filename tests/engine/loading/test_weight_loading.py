"""Weights are loaded into their parameters as safetensors reads them, and nothing is left over."""

import gc
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.checkpoint_loading import CPU, load_checkpoint
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from eightfold.engine import CheckpointError
from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.inspection.meta_model import (
    allocate_parameters,
    build_meta_model,
    materialize,
    named_tensors,
)
from eightfold.engine.loading import checkpoint, gpu_loader
from eightfold.engine.loading.checkpoint import load_weights, model_end_token_ids, read_config
from eightfold.engine.loading.cpu_loader import map_weights
from eightfold.engine.loading.pinned_ring import PinnedRing
from eightfold.engine.loading.read_spans import ReadSpan
from eightfold.engine.loading.safetensors_headers import read_header, read_stored_tensors
from eightfold.engine.loading.weight_matching import match_weights

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, no_gpu])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", tiny_models.BUILDERS)
@pytest.mark.parametrize("allocate", [None, allocate_parameters], ids=["mapped", "read"])
def test_equals_from_pretrained_and_safetensors(
    name: str, dtype: torch.dtype, allocate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_models.build(name).to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="30KB")
    architecture = inspect_architecture(read_config(tmp_path))
    expected = checkpoint._load_with_transformers(tmp_path, architecture, CPU, dtype)
    monkeypatch.setattr(checkpoint, "_load_with_transformers", None)  # it must not be needed
    loaded, _ = load_checkpoint(tmp_path, dtype=dtype, allocate=allocate)
    assert not loaded.training
    for wanted, found in (
        (dict(expected.named_parameters()), dict(loaded.named_parameters())),
        (dict(expected.named_buffers()), dict(loaded.named_buffers())),
    ):
        assert wanted.keys() == found.keys()
        for key, tensor in wanted.items():
            assert (found[key].dtype, found[key].device) == (tensor.dtype, tensor.device), key
            assert torch.equal(found[key], tensor), key
    stored = read_stored_tensors(tmp_path)
    tensors: dict[str, torch.Tensor] = {}
    for file in {tensor.file for tensor in stored}:
        tensors |= load_file(file)
    assert tensors.keys() == {tensor.name for tensor in stored}
    mapping = checkpoint.TEXT_KEY_MAPPING if architecture.wrapped else None
    meta_model = build_meta_model(architecture.config, dtype)
    found = named_tensors(loaded)
    pairs = match_weights(meta_model, named_tensors(meta_model), stored, mapping).pairs
    assert {id(found[key]) for _, key in pairs} == {id(tensor) for tensor in found.values()}
    for tensor, key in pairs:
        assert torch.equal(found[key], tensors[tensor.name].to(dtype)), key
    assert model_end_token_ids(loaded) == model_end_token_ids(expected)
    assert loaded.generation_config.to_dict() == expected.generation_config.to_dict()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("span_bytes", [4096, 1 << 20])
def test_loaded_tensors_equal_safetensors(tmp_path: Path, device: str, span_bytes: int) -> None:
    # Odd sizes and one-byte tensors misalign the tensors that follow.
    torch.manual_seed(0)
    kinds = (torch.bfloat16, torch.float32, torch.float16, torch.bool, torch.int64)
    tensors = {
        f"t{i}": torch.randn(1 + 37 * i, 3).mul(9).to(kinds[i % len(kinds)]) for i in range(40)
    }
    tensors |= {"flag": torch.tensor([True]), "scalar": torch.tensor(2.5), "none": torch.ones(0, 3)}
    half = len(tensors) // 2
    names = list(tensors)
    files = {"a.safetensors": names[:half], "b.safetensors": names[half:]}
    for file, held in files.items():
        save_file({name: tensors[name] for name in held}, tmp_path / file)
    index = {"weight_map": {name: file for file, held in files.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    stored = read_stored_tensors(tmp_path)
    for widened in (False, True):
        targets = {
            name: torch.full(
                tensor.shape,
                1,
                dtype=torch.float64 if widened and tensor.is_floating_point() else tensor.dtype,
                device=device,
            )
            for name, tensor in tensors.items()
        }
        config = gpu_loader.LoaderConfig(threads=5, span_bytes=span_bytes)
        pairs = [(tensor, tensor.name) for tensor in stored]
        report = gpu_loader.read_tensors(pairs, targets, torch.device(device), config)
        assert report.tensors == len(tensors)
        assert report.nbytes == sum(tensor.nbytes for tensor in tensors.values())
        assert bool(report.converted) is widened
        for file in files:
            for name, tensor in load_file(tmp_path / file).items():
                assert torch.equal(targets[name].cpu(), tensor.to(targets[name].dtype)), name


def test_runs_hold_each_span_once_and_the_last_ones_are_short() -> None:
    files = [Path("a"), Path("b"), Path("c")]
    sizes = {files[0]: 3000, files[1]: 7, files[2]: 1000}  # spans of 1 MiB
    spans = [
        ReadSpan(f, i * (1 << 20), 1 << 20) for f, count in sizes.items() for i in range(count)
    ]
    for readers in (1, 16, 256):
        runs = gpu_loader._group_into_runs(spans, readers)
        assert [span for run in runs for span in run] == spans
        assert all(len({span.file for span in run}) == 1 for run in runs)
        lengths = [sum(span.nbytes for span in run) for run in runs]
        assert max(lengths) <= gpu_loader.MAX_RUN_BYTES
        tail = 0
        for length in reversed(lengths):
            tail += length
            assert length <= max(1 << 20, tail // (2 * readers))
    assert gpu_loader._group_into_runs([], 4) == []


def memory_maps() -> str:
    return Path("/proc/self/maps").read_text()


def test_a_cpu_maps_the_files_and_copies_only_converted_tensors(tmp_path: Path) -> None:
    tiny_models.save("llama", tmp_path)
    file = str(tmp_path / "model.safetensors")
    model, _ = load_checkpoint(tmp_path)
    assert file in memory_maps()
    with torch.no_grad():
        model.model.norm.weight.add_(1)
    tensors = load_file(file)
    # The file has not changed.
    assert torch.equal(model.model.norm.weight, tensors["model.norm.weight"] + 1)
    del model, tensors
    gc.collect()
    assert file not in memory_maps()
    model, _ = load_checkpoint(tmp_path, dtype=torch.bfloat16)
    assert file not in memory_maps()
    assert model.dtype == torch.bfloat16


def test_conversions_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_models.save("llama", tmp_path)
    with caplog.at_level("INFO", logger="eightfold.engine.loading.checkpoint"):
        load_checkpoint(tmp_path, dtype=torch.bfloat16)
    assert "; 21 from F32 to bfloat16" in caplog.text


def test_a_file_replaced_before_it_is_mapped_is_reported(tmp_path: Path) -> None:
    tiny_models.save("llama", tmp_path)
    file = tmp_path / "model.safetensors"
    pairs = [(tensor, tensor.name) for tensor in read_header(file)]
    config = inspect_architecture(read_config(tmp_path)).config
    good = file.read_bytes()
    save_file({name.name: torch.ones(3) for name, _ in pairs}, file)
    with pytest.raises(CheckpointError, match="was replaced"):
        map_weights(pairs, build_meta_model(config, torch.float32))
    file.write_bytes(good[:-100])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        map_weights(pairs, build_meta_model(config, torch.float32))


def test_fused_parameters_and_tied_weights(tmp_path: Path) -> None:
    reference = tiny_models.save("gemma4_wrapped", tmp_path)
    joint: dict[int, torch.Tensor] = {}

    def allocate(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
        for index, layer in enumerate(model.model.layers):
            parts = [layer.mlp.gate_proj, layer.mlp.up_proj]
            rows = parts[0].weight.shape[0]
            joint[index] = torch.empty(2 * rows, parts[0].weight.shape[1], dtype=dtype)
            for part, weight in zip(parts, joint[index].split(rows), strict=True):
                part.weight = torch.nn.Parameter(weight, requires_grad=False)
        allocate_parameters(model, device, dtype)

    model, _ = load_checkpoint(tmp_path, allocate=allocate)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    text = reference.model.language_model
    for index, layer in enumerate(text.layers):
        wanted = torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight])
        assert torch.equal(joint[index], wanted)
        weight = model.model.layers[index].mlp.up_proj.weight
        assert weight.untyped_storage().data_ptr() == joint[index].data_ptr()


def test_wrongly_allocated_parameters_are_refused(tmp_path: Path) -> None:
    tiny_models.save("llama", tmp_path)

    def allocate_transposed(
        model: PreTrainedModel, device: torch.device, dtype: torch.dtype
    ) -> None:
        weight = model.model.layers[0].mlp.up_proj.weight
        transposed = torch.empty(weight.shape[::-1], dtype=dtype).T
        model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(transposed)
        allocate_parameters(model, device, dtype)

    with pytest.raises(AssertionError, match=r"up_proj\.weight is not contiguous"):
        load_checkpoint(tmp_path, allocate=allocate_transposed)
    with pytest.raises(AssertionError, match="is on meta"):
        load_checkpoint(tmp_path, allocate=lambda *_: None)


@pytest.mark.parametrize("stored", ["embedding", "head", "both equal", "both different"])
@pytest.mark.parametrize("allocate", [None, allocate_parameters], ids=["mapped", "read"])
def test_tied_weights_stay_tied_unless_they_differ(tmp_path: Path, stored: str, allocate) -> None:
    reference = tiny_models.save("gemma4", tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    wanted = reference.lm_head.weight.detach()
    apart = stored == "both different"
    if stored != "embedding":
        tensors["lm_head.weight"] = wanted + 1 if apart else wanted.clone()
    if stored == "head":
        del tensors["model.embed_tokens.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    model, _ = load_checkpoint(tmp_path, allocate=allocate)
    assert torch.equal(model.model.embed_tokens.weight, wanted)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is not apart
    assert torch.equal(model.lm_head.weight, wanted + int(apart))


def test_experts_are_merged_by_transformers(tmp_path: Path) -> None:
    import transformers

    config = transformers.Qwen3MoeConfig(
        **tiny_models.COMMON, num_hidden_layers=1, head_dim=8, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=16,
    )  # fmt: skip
    torch.manual_seed(1)
    reference = transformers.Qwen3MoeForCausalLM(config)
    reference.save_pretrained(tmp_path)
    names = {tensor.name for tensor in read_stored_tensors(tmp_path)}
    assert any(".experts.3.up_proj" in name for name in names), "experts are stored one by one"
    model, _ = load_checkpoint(tmp_path)
    for key, tensor in reference.named_parameters():
        assert torch.equal(model.get_parameter(key), tensor), key


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(5, "input/output error")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_interrupted_loading_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error, dtype: torch.dtype
) -> None:
    tiny_models.build("gemma4").save_pretrained(tmp_path, max_shard_size="20KB")
    rings: list[gpu_loader.PinnedRing] = []

    class RecordedRing(gpu_loader.PinnedRing):
        def __enter__(self) -> gpu_loader.PinnedRing:
            rings.append(self)
            return super().__enter__()

    calls = []
    real = os.preadv

    def failing(*args: object) -> int:
        calls.append(args)
        if len(calls) > 3:
            raise error
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(gpu_loader, "PinnedRing", RecordedRing)
    before = set(threading.enumerate()), open_descriptors()
    monkeypatch.setattr(os, "preadv", failing)
    wanted = CheckpointError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(wanted):
        load_checkpoint(tmp_path, dtype=dtype, allocate=allocate_parameters)
    assert (set(threading.enumerate()), open_descriptors()) == before
    assert rings
    assert all(ring.closed for ring in rings)


def test_an_interrupt_of_the_waiting_thread_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_models.build("gemma4").save_pretrained(tmp_path, max_shard_size="20KB")
    before = set(threading.enumerate()), open_descriptors()
    waits, real = threading.Event(), os.preadv

    def slow(*args: object) -> int:
        waits.set()
        time.sleep(0.3)
        return real(*args)  # type: ignore[arg-type]

    def interrupt() -> None:
        waits.wait()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    architecture = inspect_architecture(read_config(tmp_path))
    load_weights(tmp_path, architecture, CPU, torch.float32)  # initialize what is created once
    monkeypatch.setattr(os, "preadv", slow)
    killer = threading.Thread(target=interrupt)
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        load_weights(tmp_path, architecture, CPU, torch.float32, allocate_parameters)
    killer.join()
    assert (set(threading.enumerate()), open_descriptors()) == before


def test_a_forked_child_inherits_no_buffers() -> None:
    # The first write after a fork would move a locked page away from where the device reads it.
    with PinnedRing(CPU, 2, 3 << 20) as ring:
        begin = torch.frombuffer(ring.acquire(), dtype=torch.uint8).data_ptr()
        child = os.fork()
        if not child:
            held = any(
                int(low, 16) <= begin < int(high, 16)
                for low, _, high in (
                    line.split()[0].partition("-") for line in memory_maps().splitlines()
                )
            )
            os._exit(held)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ring.closed


def test_a_device_failure_at_the_end_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A GPU reports failed work when its stream is synchronized.
    def synchronize(ring: gpu_loader.PinnedRing) -> None:
        raise RuntimeError("illegal address")

    tiny_models.save("llama", tmp_path)
    monkeypatch.setattr(gpu_loader.PinnedRing, "synchronize", synchronize)
    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="illegal address"):
        load_checkpoint(tmp_path, allocate=allocate_parameters)
    assert set(threading.enumerate()) == before


def test_a_file_truncated_before_it_is_read_is_reported(tmp_path: Path) -> None:
    tiny_models.save("llama", tmp_path)
    file = tmp_path / "model.safetensors"
    config = inspect_architecture(read_config(tmp_path)).config
    pairs = [(tensor, tensor.name) for tensor in read_header(file)]
    model = build_meta_model(config, torch.float32)
    materialize(model, CPU, torch.float32)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="it ends too early"):
        gpu_loader.read_tensors(pairs, named_tensors(model), CPU)


@pytest.mark.parametrize("change", [{"threads": 0}, {"span_bytes": 5000}, {"buffers": 0}], ids=str)
def test_settings_out_of_range_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        gpu_loader.LoaderConfig(**change)
