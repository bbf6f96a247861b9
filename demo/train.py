"""Trains the bundled model from scratch within a given time.

``python -m eightfold.demo.train --minutes 8 --out FOLDER`` on a machine with a GPU: worker
processes write traces all the while, the learning rate follows the clock. A CPU does for a trial.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from .muon_optimizer import Optimizer
from .training_network import Attend, Network, Shape, load_weights, save_configs, save_weights
from .training_rows import LENGTH, OWNERS, POSITIONS, TARGETS, TOKENS, Supply

HERE = Path(__file__).parent
Loss = Callable[[Network, Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        minutes: from the first step to the last.
        rows: rows a step.
        rate: highest learning rate.
        warmup: steps until it is reached.
        flat: share of the time before it decays, linearly to `last` of its value.
        saves: shares of the time at which the weights are saved.
    """

    minutes: float = 8.0
    rows: int = 64
    rate: float = 4e-3
    warmup: int = 100
    flat: float = 0.4
    last: float = 0.02
    saves: tuple[float, ...] = (0.35, 0.7)
    seed: int = 0

    def rate_at(self, step: int, share: float) -> float:
        """The learning rate at a step, when this share of the time is over."""
        decay = min(1.0, (1.0 - share) / (1.0 - self.flat))
        return self.rate * min(1.0, (step + 1) / self.warmup) * max(self.last, decay)


def sees(owners: Tensor, positions: Tensor, window: int | None) -> Callable[..., Tensor]:
    """Whether a query sees a key: not later, in the prefix or the same trace, within the window."""

    def rule(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        near = (q >= k) & ((owners[b, k] == owners[b, q]) | (owners[b, k] == 0))
        if window is not None:
            near = near & (positions[b, q] - positions[b, k] < window)
        return near

    return rule


def dense_attention(owners: Tensor, positions: Tensor, window: int) -> Attend:
    """Attention through full boolean masks, for CPUs and where block masks fail."""
    order = torch.arange(owners.shape[1], device=owners.device)
    full = (order[:, None] >= order) & (
        (owners[:, :, None] == owners[:, None]) | (owners[:, None] == 0)
    )
    near = full & (positions[:, :, None] - positions[:, None] < window)

    def attend(q: Tensor, k: Tensor, v: Tensor, sliding: bool) -> Tensor:
        mask = (near if sliding else full)[:, None]
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)

    return attend


def block_attention(full: BlockMask, near: BlockMask) -> Attend:
    """Attention through block masks."""

    def attend(q: Tensor, k: Tensor, v: Tensor, sliding: bool) -> Tensor:
        y = flex_attention(
            q.bfloat16(),
            k.bfloat16(),
            v.bfloat16(),
            block_mask=near if sliding else full,
            scale=1.0,
            enable_gqa=True,
        )
        assert isinstance(y, Tensor)
        return y

    return attend


def loss_of(network: Network, attend: Attend, row: Tensor) -> Tensor:
    """Mean loss over the learned tokens of rows (B, 4, LENGTH)."""
    logits = network(row[:, TOKENS], row[:, POSITIONS], attend)
    return F.cross_entropy(logits.flatten(0, 1), row[:, TARGETS].flatten(), ignore_index=-1)


def dense_loss(network: Network, row: Tensor) -> Tensor:
    attend = dense_attention(row[:, OWNERS], row[:, POSITIONS], network.shape.sliding_window)
    return loss_of(network, attend, row)


def block_loss() -> Loss:
    """A compiled loss with block masks, which are made outside of the compiled part."""
    make = torch.compile(create_block_mask, dynamic=False)

    def inner(network: Network, row: Tensor, full: BlockMask, near: BlockMask) -> Tensor:
        return loss_of(network, block_attention(full, near), row)

    compiled = torch.compile(inner, dynamic=False)

    def loss(network: Network, row: Tensor) -> Tensor:
        owners, positions = (row[:, i].int().contiguous() for i in (OWNERS, POSITIONS))
        size = (row.shape[0], None, row.shape[2], row.shape[2], row.device)
        full = make(sees(owners, positions, None), *size)
        near = make(sees(owners, positions, network.shape.sliding_window), *size)
        return compiled(network, row, full, near)

    return loss


def choose_loss(network: Network, row: Tensor, dense: bool) -> Loss:
    """The fastest loss that works on this machine; tried on one batch, forward and backward."""
    if not row.is_cuda:
        return dense_loss
    choices: list[tuple[str, Loss]] = [("dense", torch.compile(dense_loss, dynamic=False))]
    if not dense:
        choices.insert(0, ("blocks", block_loss()))
    for name, loss in choices:
        began = time.monotonic()
        try:
            with torch.autocast("cuda", torch.bfloat16):
                loss(network, row).backward()
                value = loss(network, row).item()
                exact = float(
                    np.mean([dense_loss(network, row[i : i + 2]).item() for i in range(0, 8, 2)])
                )
        except (
            Exception
        ) as error:  # any failure of the compiler: the next choice is slower but simpler
            print(f"{name} failed: {type(error).__name__}: {str(error)[:2000]}", flush=True)
            continue
        print(
            f"{name}: loss {value:.4f}, dense {exact:.4f}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
        return loss
    raise RuntimeError("No way of computing the loss works on this machine.")


def export(network: Network, source: Path, out: Path) -> None:
    """Weights, configs and tokenizer: a folder that Transformers loads."""
    save_weights(network, out)
    save_configs(network.shape, out)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (source / name).resolve() != (out / name).resolve():
            shutil.copyfile(source / name, out / name)


def train(plan: Plan, network: Network, supply: Supply, options: argparse.Namespace) -> Network:
    """Trains until the time is over."""
    device = next(network.parameters()).device
    draw = np.random.default_rng(plan.seed)

    def batch() -> Tensor:
        made = torch.from_numpy(supply.batch(plan.rows, draw))
        if device.type == "cuda":
            made = made.pin_memory().to(device, non_blocking=True)
        return made.long()

    loss_fn = choose_loss(network, batch(), options.dense)
    network.zero_grad(set_to_none=True)
    optimizer = Optimizer(network)
    saves = list(plan.saves)
    began = time.monotonic()
    seconds = min(plan.minutes * 60, options.deadline - began)
    step, seen, losses = 0, 0, []
    while (share := (time.monotonic() - began) / seconds) < 1.0:
        row = batch()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = loss_fn(network, row)
        loss.backward()
        optimizer.step(plan.rate_at(step, share))
        losses.append(loss.detach())
        step += 1
        if step % options.every == 0:
            mean = torch.stack(losses[-options.every :]).mean().item()  # waits for the device
            if not np.isfinite(mean):
                raise RuntimeError(f"The loss is {mean} at step {step}.")
            passed = time.monotonic() - began
            seen = step * plan.rows * row.shape[2]
            print(
                f"step {step} loss {mean:.4f} share {share:.3f} tokens {seen / 1e6:.0f}M "
                f"{seen / passed / 1e3:.0f}k/s rows made {supply.made()} used {step * plan.rows}",
                flush=True,
            )
        if saves and share >= saves[0]:
            saves.pop(0)
            save_weights(network, options.out)
    print(f"{step} steps, {step * plan.rows * row.shape[2] / 1e6:.0f}M tokens", flush=True)
    return network


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="eightfold.demo.train", description=train.__doc__)
    parser.add_argument("--minutes", type=float, default=Plan.minutes)
    parser.add_argument(
        "--deadline", type=float, default=1e9, help="seconds from the start, at most"
    )
    parser.add_argument("--rows", type=int, default=Plan.rows)
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens a row")
    parser.add_argument("--rate", type=float, default=Plan.rate)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--capacity", type=int, default=60_000, help="rows kept")
    parser.add_argument("--every", type=int, default=100, help="steps between lines of the log")
    parser.add_argument(
        "--source", type=Path, default=HERE / "model", help="folder of the tokenizer"
    )
    parser.add_argument("--resume", type=Path, help="folder with weights to start from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--shape", type=json.loads, default={}, help="changes of the shape, as JSON"
    )
    parser.add_argument("--dense", action="store_true", help="no block masks")
    parser.add_argument(
        "--evaluate", type=int, default=0, help="held-out problems to try at the end"
    )
    options = parser.parse_args(argv)
    options.deadline += time.monotonic()
    return options


def main(argv: list[str] | None = None) -> int:
    """Trains, saves and, if asked to, evaluates."""
    options = parse(argv)
    supply = Supply(options.source, options.workers, options.capacity, options.seed, options.length)
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    network = Network(replace(Shape(), **options.shape))
    if options.resume:
        load_weights(network, options.resume)
    count = sum(p.numel() for p in network.parameters())
    print(f"{count / 1e6:.2f}M parameters", flush=True)
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    supply.wait(min(options.capacity, options.rows * 4))
    plan = Plan(minutes=options.minutes, rows=options.rows, rate=options.rate, seed=options.seed)
    try:
        train(plan, network, supply, options)
    finally:
        supply.close()
    export(network, options.source, options.out)
    if options.evaluate:
        from .generate_accuracy import report

        print(report(options.out, options.evaluate, attempts=8, seed=1), flush=True)
        count = options.evaluate // 2
        print(report(options.out, count, 8, 2, "held_out_phrasing"), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
