"""Train the tiny gpt-oss model from scratch within a given time.

``python -m eightfold.demo.gpt_oss.harmony_training --minutes 1.5 --source FOLDER --out FOLDER``
trains on a GPU, or on the CPU to try it out. In the last part of the time the experts' matrices are
rounded to MXFP4 in each step, with gradients as if they were not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..muon_optimizer import MuonWithAdam
from ..train import Schedule
from ..training_rows import POSITIONS, SEGMENTS, TARGETS, TOKENS, RowSupply
from .expert_network import ExpertNetwork, ExpertNetworkConfig, load_model, save_model
from .harmony_traces import HarmonyEncoder

LENGTH = 1024
ROUNDED_FROM = 0.6
"""Share of the time after which the experts are rounded."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def mean_loss(network: ExpertNetwork, row: Tensor) -> Tensor:
    """Return the mean loss over the tokens of rows (B, 4, LENGTH) that are trained on."""
    segments = row[:, SEGMENTS]
    order = torch.arange(segments.shape[1], device=segments.device)
    visible = (order[:, None] >= order) & (
        (segments[:, :, None] == segments[:, None]) | (segments[:, None] == 0)
    )
    logits = network(row[:, TOKENS], row[:, POSITIONS], visible).flatten(0, 1)
    targets = row[:, TARGETS].flatten()
    loss = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    return loss / (targets >= 0).sum().clamp(min=1)


def train(
    schedule: Schedule, network: ExpertNetwork, supply: RowSupply, options: argparse.Namespace
) -> None:
    """Train until the time is over.

    Raises:
        RuntimeError: the loss is not finite.
    """
    device = next(network.parameters()).device
    draw = np.random.default_rng(schedule.seed)
    optimizer = MuonWithAdam(network)
    began = time.monotonic()
    seconds = min(schedule.minutes * 60, options.deadline - began)
    step = 0
    losses: list[Tensor] = []
    while (share := (time.monotonic() - began) / seconds) < 1.0:
        network.set_rounding(float(share >= ROUNDED_FROM))
        row = torch.from_numpy(supply.batch(schedule.rows, draw)).to(device).long()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = mean_loss(network, row)
        loss.backward()
        optimizer.step(schedule.rate_at(step, share))
        losses.append(loss.detach())
        step += 1
        if step % options.every == 0:
            mean = torch.stack(losses[-options.every :]).mean().item()  # waits for the device
            if not np.isfinite(mean):
                raise RuntimeError(f"The loss is {mean} at step {step}.")
            speed = step * row[:, TOKENS].numel() / (time.monotonic() - began)
            print(
                f"step {step} loss {mean:.4f} share {share:.3f} {speed / 1e3:.0f}k tokens/s, rows "
                f"made {supply.made()} used {step * schedule.rows}",
                flush=True,
            )
    print(f"{step} steps", flush=True)


def export(network: ExpertNetwork, source: Path, out: Path) -> None:
    """Write weights, configuration and tokenizer."""
    save_model(network, out)
    for name in TOKENIZER_FILES:
        if (source / name).resolve() != (out / name).resolve():
            shutil.copyfile(source / name, out / name)


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line; `deadline` becomes a time of the monotonic clock."""
    parser = argparse.ArgumentParser(
        prog="eightfold.demo.gpt_oss.harmony_training", description=main.__doc__
    )
    add = parser.add_argument
    add("--minutes", type=float, default=1.5, help="time to train (%(default)s)")
    add("--deadline", type=float, default=1e9, help="most seconds from the start of the process")
    add("--rows", type=int, default=48, help="rows per step (%(default)s)")
    add("--length", type=int, default=LENGTH, help="tokens in a row (%(default)s)")
    add("--rate", type=float, default=Schedule.rate, help="highest learning rate (%(default)s)")
    add("--seed", type=int, default=0, help="(%(default)s)")
    workers = max(1, (os.cpu_count() or 2) - 1)
    add("--workers", type=int, default=workers, help="processes that write traces (%(default)s)")
    add("--capacity", type=int, default=40_000, help="rows kept in memory (%(default)s)")
    add("--every", type=int, default=50, help="steps between two lines of the log (%(default)s)")
    add("--source", type=Path, required=True, help="folder of the tokenizer")
    add("--resume", type=Path, help="folder of weights to start from")
    add("--out", type=Path, required=True, help="folder for the model")
    add("--shape", type=json.loads, default={}, help="sizes that differ from the default, as JSON")
    options = parser.parse_args(argv)
    options.deadline += time.monotonic()
    return options


def main(argv: list[str] | None = None) -> int:
    """Train the tiny gpt-oss model and save it."""
    options = parse_options(argv)
    supply = RowSupply(
        HarmonyEncoder(options.source),
        options.workers,
        options.capacity,
        options.seed,
        options.length,
    )
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    network = ExpertNetwork(replace(ExpertNetworkConfig(), **options.shape))
    if options.resume:
        load_model(network, options.resume)
    count = sum(p.numel() for p in network.parameters())
    print(f"{count / 1e6:.2f}M parameters", flush=True)
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    schedule = Schedule(
        minutes=options.minutes, rows=options.rows, rate=options.rate, seed=options.seed
    )
    try:
        supply.wait(min(options.capacity, options.rows * 4))
        train(schedule, network, supply, options)
    finally:
        supply.close()
    export(network, options.source, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
