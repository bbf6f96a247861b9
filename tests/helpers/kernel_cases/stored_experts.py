"""Small experts whose weights are stored in FP8 or 4 bits, for tests."""

import torch
from helpers.kernel_cases.kernel_devices import DEVICE

from eightfold.kernels.experts.expert_weights import Activation, ExpertWeights
from eightfold.kernels.experts.stored.expert_stack import stack_matrices
from eightfold.kernels.quantized.stored_matrix import FP8, StoredMatrix, pack_nibbles

FORMATS = ("fp8_rows", "fp8_tensor", "fp8_block", "int4_rows", "int4_128", "int4_32", "int4_64")
"""Names of `make_matrix`; those of 4 bits also with "_zeros"."""

ALL = [*FORMATS, *(f"{name}_zeros" for name in FORMATS if name.startswith("int4"))]


def make_matrix(name: str, rows: int, columns: int, seed: int = 0) -> StoredMatrix:
    """Return a random matrix of a format on the device."""
    generator = torch.Generator().manual_seed(seed)
    kind, group, *zeros = name.split("_")
    shared = {"tensor": rows, "block": 128}.get(group, 1)
    width = {"block": 128, "128": 128, "64": 64, "32": 32}.get(group, columns)
    shape = (-(-rows // shared), -(-columns // width))
    scales = (0.5 + torch.rand(shape, generator=generator)).bfloat16()
    if kind == "fp8":
        codes = torch.randn(rows, columns, generator=generator).to(FP8)
        scales = scales if group == "block" else scales.float()
        return StoredMatrix(codes.to(DEVICE), scales.to(DEVICE), None, shared, width)
    codes = torch.randint(0, 16, (rows, columns), generator=generator).to(torch.uint8)
    points = torch.randint(0, 16, shape, generator=generator).to(torch.uint8) if zeros else None
    return StoredMatrix(
        pack_nibbles(codes).to(DEVICE),
        scales.to(DEVICE) / 8,
        None if points is None else points.to(DEVICE),
        1,
        width,
    )


def expert_matrices(
    name: str, experts: int, hidden: int, inner: int
) -> tuple[list[StoredMatrix], list[StoredMatrix]]:
    """Return the gate and up matrices of all experts in turns, and their down matrices."""
    gate_up = [make_matrix(name, inner, hidden, seed) for seed in range(2 * experts)]
    return gate_up, [make_matrix(name, hidden, inner, 1000 + seed) for seed in range(experts)]


def stored_experts(
    name: str, experts: int, hidden: int, inner: int, activation: Activation = "silu"
) -> ExpertWeights:
    """Return experts of a format."""
    gate_up, down = expert_matrices(name, experts, hidden, inner)
    return ExpertWeights(activation, gate_up=stack_matrices(gate_up, 2), down=stack_matrices(down))
