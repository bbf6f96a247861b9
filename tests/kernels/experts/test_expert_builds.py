"""The experts' kernels compile within each GPU's limits; no GPU is needed. About 40 seconds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.kernel_cases.kernel_devices import CUDA

from eightfold.kernels.cuda import nvrtc
from eightfold.kernels.experts import bf16_stream, few_rows, many_rows, mxfp4_stream
from eightfold.kernels.experts.expert_config import STACKED_STREAMS
from eightfold.kernels.experts.expert_weights import ExpertWeights
from eightfold.kernels.experts.mxfp4_stream import StreamConfig
from eightfold.kernels.experts.router import ROUTED
from eightfold.kernels.experts.stored.expert_stack import StoredStack

BUILDS = Path(__file__).parents[2] / "helpers" / "kernel_cases" / "expert_builds.py"
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")


@pytest.mark.skipif(CUDA, reason="on a GPU the other tests compile the kernels")
def test_triton_kernels_compile_for_every_gpu() -> None:
    environment = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(BUILDS)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("built") == 58


def compile_with_nvcc(
    source: str,
    defines: tuple[tuple[str, object], ...],
    folder: Path,
    architecture: str = "sm_90a",
) -> str:
    """Compile one of the folder's CUDA sources; return the assembler's report."""
    command = [
        "nvcc",
        f"-arch={architecture}",
        "-cubin",
        "-Xptxas",
        "-v",
        "-I",
        str(nvrtc.SOURCE_FOLDER),
    ]
    command += [f"-D{name}={value}" for name, value in defines]
    command += ["-o", str(folder / "kernel.cubin"), str(nvrtc.SOURCE_FOLDER / source)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    return run.stderr


def gpt_oss_experts() -> ExpertWeights:
    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.uint8, device="meta")

    return ExpertWeights(
        activation="clamped_swiglu",
        interleaved=True,
        gate_up_blocks=empty(128, 5760, 90, 16),
        gate_up_scales=empty(128, 5760, 90),
        down_blocks=empty(128, 2880, 90, 16),
        down_scales=empty(128, 2880, 90),
        gate_up_bias=empty(128, 5760).bfloat16(),
        down_bias=empty(128, 2880).bfloat16(),
    )


def qwen_experts() -> ExpertWeights:
    gate_up = torch.empty(128, 1536, 2048, dtype=torch.bfloat16, device="meta")
    down = torch.empty(128, 2048, 768, dtype=torch.bfloat16, device="meta")
    return ExpertWeights(activation="silu", gate_up=gate_up, down=down)


@needs_nvcc
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("experts", [gpt_oss_experts(), qwen_experts()], ids=["mxfp4", "bf16"])
def test_few_rows_compiles_without_spills(
    experts: ExpertWeights, gated: bool, tmp_path: Path
) -> None:
    config = few_rows.few_rows_config(experts)
    tiles = config.gate_up if gated else config.down
    defines = few_rows.kernel_defines(experts, 4, config.tile_rows, tiles, gated)
    report = compile_with_nvcc(few_rows.SOURCE, (*defines, ("PDL", 1)), tmp_path)
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report


@needs_nvcc
@pytest.mark.parametrize("capability", [80, 86, 89, 100, 120])
def test_few_rows_compiles_for_other_gpus(capability: int, tmp_path: Path) -> None:
    experts = gpt_oss_experts()
    config = few_rows.few_rows_config(experts)
    defines = few_rows.kernel_defines(experts, 4, config.tile_rows, config.gate_up, True)
    macros = (*defines, ("PDL", int(capability >= 90)))
    report = compile_with_nvcc(few_rows.SOURCE, macros, tmp_path, f"sm_{capability}")
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report


@needs_nvcc
@pytest.mark.parametrize("experts", [gpt_oss_experts(), qwen_experts()], ids=["mxfp4", "bf16"])
def test_many_rows_compiles_without_spills(experts: ExpertWeights, tmp_path: Path) -> None:
    defines = many_rows.kernel_defines(experts, 4, True)
    report = compile_with_nvcc(many_rows.SOURCES[experts.is_mxfp4], defines, tmp_path)
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report
    assert "serialized" not in report, "matrix products wait for one another"


def assert_products_overlap(report: str) -> None:
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report
    assert "serialized" not in report, "matrix products wait for one another"


@needs_nvcc
@pytest.mark.parametrize("config", [StreamConfig(), StreamConfig(4, 8)], ids=str)
def test_mxfp4_stream_compiles_without_spills(config: StreamConfig, tmp_path: Path) -> None:
    defines = mxfp4_stream.kernel_defines(gpt_oss_experts(), 4, config, ROUTED["topk_softmax"])
    assert_products_overlap(compile_with_nvcc(mxfp4_stream.SOURCE, defines, tmp_path))


@needs_nvcc
def test_bf16_stream_compiles_without_spills(tmp_path: Path) -> None:
    config = bf16_stream.Bf16StreamConfig()
    defines = bf16_stream.kernel_defines(qwen_experts(), 8, config, ROUTED["softmax_topk"])
    assert_products_overlap(compile_with_nvcc(bf16_stream.SOURCE, defines, tmp_path))


def stored_qwen_experts(fp8: bool, group: int) -> ExpertWeights:
    """Qwen3-30B-A3B's experts in FP8, or in 4 bits with zero points."""

    def stack(rows: int, columns: int) -> StoredStack:
        shared = group if fp8 and group else 1
        groups = columns // group if group else 1

        def empty(*shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=torch.uint8, device="meta")

        return StoredStack(
            empty(128, rows, columns if fp8 else columns // 2),
            empty(128, groups, rows // shared).bfloat16(),
            None if fp8 else empty(128, groups, rows),
            fp8,
            shared,
            group or columns,
        )

    return ExpertWeights("silu", gate_up=stack(1536, 2048), down=stack(2048, 768))


@needs_nvcc
@pytest.mark.parametrize(("fp8", "group"), [(True, 0), (True, 128), (False, 128), (False, 32)])
def test_streams_of_stored_weights_compile_without_spills(
    fp8: bool, group: int, tmp_path: Path
) -> None:
    experts, config = stored_qwen_experts(fp8, group), STACKED_STREAMS[0]
    defines = bf16_stream.kernel_defines(experts, 8, config, ROUTED["softmax_topk"])
    assert_products_overlap(compile_with_nvcc(bf16_stream.SOURCE, defines, tmp_path))
