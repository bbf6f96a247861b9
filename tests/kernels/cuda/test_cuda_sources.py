"""The CUDA C++ sources: includes resolve, every kernel compiles, structures match Python's."""

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from helpers.kernel_cases.kernel_devices import CUDA, HOPPER

import eightfold.kernels.layers.linear_chain as linear_chain_module
import eightfold.kernels.layers.linear_many_rows as linear_many_rows_module
from eightfold.kernels.attention.attention_shapes import PagedShape
from eightfold.kernels.attention.hopper import hopper_decode, hopper_prefill
from eightfold.kernels.cuda import nvrtc
from eightfold.kernels.cuda.cuda_driver import CudaError
from eightfold.kernels.layers.beside_experts import linear_prefetched as linear_prefetched_module

Defines = tuple[tuple[str, object], ...]


def attention_shape(heads: int, kv_heads: int, head_dim: int) -> PagedShape:
    return PagedShape(8, heads, head_dim, kv_heads, page_size=64, sequences=8)


KERNELS: list[tuple[str, Defines]] = [
    ("layer_tail", linear_chain_module.kernel_defines(8, 5376)),
    ("layer_tail", linear_chain_module.kernel_defines(64, 5376)),
    *(
        ("linear_many_rows", linear_many_rows_module.kernel_defines(tile, False))
        for tile in (128, 160, 168, 192)
    ),
    ("linear_many_rows", linear_many_rows_module.kernel_defines(176, True)),
    ("linear_many_rows", linear_many_rows_module.kernel_defines(192, True)),
    ("prefill_attention", hopper_prefill.kernel_defines(attention_shape(32, 16, 256))),
    ("prefill_attention", hopper_prefill.kernel_defines(attention_shape(64, 8, 128))),
    ("prefill_attention", hopper_prefill.kernel_defines(attention_shape(64, 8, 64))),
    ("decode_attention", hopper_decode.kernel_defines(attention_shape(32, 16, 256), 8)),
    ("decode_attention", hopper_decode.kernel_defines(attention_shape(64, 8, 128), 1)),
    ("decode_attention", hopper_decode.kernel_defines(attention_shape(64, 8, 64), 8)),
    (
        "one_copy_attention",
        (("HEADS", 32), ("KV_HEADS", 4), ("PAGE_SIZE", 64), ("KEY_WEIGHT", "float")),
    ),
    ("linear_prefetched", linear_prefetched_module.kernel_defines(2880, 0, torch.bfloat16)),
    ("linear_prefetched", linear_prefetched_module.kernel_defines(2880, 4, torch.bfloat16)),
]
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")


def source_files(pattern: str) -> list[Path]:
    found = sorted(nvrtc.SOURCE_FOLDER.glob(pattern))
    assert found, f"{pattern} is not installed"
    return found


def includes(path: Path) -> list[str]:
    return re.findall(r'^#include "(.+)"$', path.read_text(), re.MULTILINE)


def compile_with_nvcc(source: Path, defines: Iterable[tuple[str, object]], folder: Path) -> str:
    """Compile to machine code in ``folder``; return the assembler's report."""
    command = ["nvcc", "-arch=sm_90a", "-cubin", "-Xptxas", "-v", "-I", str(nvrtc.SOURCE_FOLDER)]
    command += [f"-D{name}={value}" for name, value in defines]
    command += ["-o", str(folder / "kernel.cubin"), str(source)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    return run.stderr


def test_includes_resolve() -> None:
    headers = nvrtc.header_texts()
    kernels = nvrtc.SOURCE_FOLDER.parent
    header_files = list(kernels.rglob("*.cuh"))
    assert len(header_files) == len(headers), "two headers have the same name"
    sources = [*kernels.rglob("*.cu"), *header_files]
    included = {name for path in sources for name in includes(path)}
    assert included == set(headers)
    for path in sources:
        assert path.read_text().count("#include") == len(includes(path)), "only our own headers"
    for name, text in headers.items():
        assert text.count("#pragma once") == 1, name


def test_each_source_defines_the_kernel_of_its_name() -> None:
    assert {path.stem for path in source_files("*.cu")} == {name for name, _ in KERNELS}
    for path in source_files("*.cu"):
        text = path.read_text()
        assert text.count('extern "C"') == 1
        assert re.search(rf'extern "C" __global__ [^;]*\b{path.stem}\(', text)


@needs_nvcc
@pytest.mark.parametrize(("name", "defines"), KERNELS)
def test_kernels_compile_without_spills(tmp_path: Path, name: str, defines: Defines) -> None:
    report = compile_with_nvcc(nvrtc.SOURCE_FOLDER / f"{name}.cu", defines, tmp_path)
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report
    assert "serialized" not in report, "matrix products wait for one another"
    if name == "prefill_attention":
        assert "C75" not in report, "matrix products wait for one another"


@needs_nvcc
def test_structures_match_the_layer_tails_arguments(tmp_path: Path) -> None:
    text = '#include "layer_tail.cu"\n'
    structures = {"Stage": linear_chain_module._Stage, "LayerTail": linear_chain_module._LayerTail}
    for name, structure in structures.items():
        text += f"static_assert(sizeof({name}) == {ctypes.sizeof(structure)});\n"
        for field, _ in structure._fields_:
            if field != "pad":
                offset = getattr(structure, field).offset
                text += f"static_assert(__builtin_offsetof({name}, {field}) == {offset});\n"
    source = tmp_path / "structures.cu"
    source.write_text(text)
    compile_with_nvcc(source, linear_chain_module.kernel_defines(8, 5376), tmp_path)


@pytest.mark.parametrize(("name", "defines"), KERNELS)
def test_nvrtc_compiles(monkeypatch: pytest.MonkeyPatch, name: str, defines: Defines) -> None:
    if torch.version.cuda is None:  # a CPU build may lie beside NVRTC of any version
        monkeypatch.setattr(torch.version, "cuda", "13.0")
    nvrtc._nvrtc.cache_clear()
    try:
        nvrtc._nvrtc()
    except CudaError as error:
        assert not CUDA
        pytest.skip(str(error))
    cubin = nvrtc.compile_cubin(f"{name}.cu", dict(defines))
    assert cubin.startswith(b"\x7fELF")
    assert name.encode() in cubin


def test_nvrtc_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "1.0")
    nvrtc._nvrtc.cache_clear()
    with pytest.raises(CudaError, match=r"libnvrtc\.so\.1 was not found\."):
        nvrtc.compile_cubin("layer_tail.cu", {})
    nvrtc._nvrtc.cache_clear()


@pytest.mark.skipif(HOPPER, reason="there the kernels load")
def test_only_hopper_runs_the_kernels() -> None:
    assert not nvrtc.is_hopper(torch.device("cpu"))
