"""Settings that must be made before the libraries they steer are imported, and the tests' order."""

import os
from pathlib import Path

import pytest
from helpers.kernel_cases.interpreter_speed import speed_up_interpreter

# One thread each: tiny models gain nothing from more, and two test runs do not fight.

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Triton decides at its own import whether it interprets, and transformers imports it.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The files that take longest, the longest first. Several processes end at about the same time only
# if none of them begins with one of these last.
LONGEST = (
    "kernels/test_triton_builds.py",
    "engine/models/test_fused_decoder.py",
    "solver/server/test_server_process.py",
    "solver/scale/test_scale_command.py",
    "solver/scale/test_cluster_run.py",
    "solver/test_real_solver.py",
    "solver/cli/test_solve_and_evaluate.py",
    "sandbox/guest/test_hostile_cells.py",
    "engine/models/test_fused_logits.py",
    "engine/speculation/test_gpu_verification.py",
    "sandbox/host/test_process_ends.py",
    "kernels/attention/test_flash_attn_prefill.py",
    "examples/test_examples.py",
    "solver/kaggle/test_offline_bundle.py",
    "solver/devices/test_engine_processes.py",
    "solver/test_document_answers.py",
    "solver/kaggle/test_kaggle_real_model.py",
    "packaging/test_distribution.py",
    "kernels/experts/test_expert_streams.py",
    "engine/models/test_families.py",
    "sandbox/host/test_outages.py",
    "sandbox/isolation/test_missing_protections.py",
    "solver/scale/test_lost_clusters.py",
    "kernels/experts/test_expert_builds.py",
    "engine/scheduling/test_scheduler_storms.py",
)
TESTS = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist keep the order; by itself it begins with the files of most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    ranks = {TESTS / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Speed up Triton's interpreter as soon as a test module has imported it."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        speed_up_interpreter()
