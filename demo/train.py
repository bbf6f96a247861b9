"""Train the bundled model from scratch within a given time.

``python -m eightfold.demo.train --minutes 8 --out FOLDER`` trains on a GPU, or on the CPU to try it
out. Worker processes write traces all the time, and the learning rate follows the clock.
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
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from .muon_optimizer import MuonWithAdam
from .tokenizer import build as build_tokenizer
from .training_network import (
    AttentionFunction,
    Network,
    NetworkConfig,
    load_weights,
    save_configs,
    save_weights,
)
from .training_rows import (
    LENGTH,
    POSITIONS,
    SEGMENTS,
    TARGETS,
    TOKENS,
    RowSupply,
    TraceEncoder,
)

Loss = Callable[[Network, Tensor], Tensor]


@dataclass(frozen=True)
class Schedule:
    """Duration, batch size and learning rate of the training.

    Attributes:
        minutes: time from the first step to the last.
        rows: rows per step.
        rate: highest learning rate.
        warmup: number of steps until it is reached.
        flat: share of the time after which it decays linearly.
        last: share of the highest rate at the end.
        saves: shares of the time after which the weights are saved.
        seed: of the choice of rows.
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
        """Return the learning rate at a step, when this share of the time is over."""
        decay = min(1.0, (1.0 - share) / (1.0 - self.flat))
        return self.rate * min(1.0, (step + 1) / self.warmup) * max(self.last, decay)


def attention_mask(
    segments: Tensor, positions: Tensor, window: int | None
) -> Callable[..., Tensor]:
    """Return the rule of who attends to whom, as `create_block_mask` expects it.

    A query attends to keys that are not later, that are in the prefix or in its own trace, and
    that are within the window.

    Args:
        segments, positions: planes of rows, (B, T).
        window: positions that a sliding layer looks back; None for a global layer.
    """

    def mask(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        visible = (q >= k) & ((segments[b, k] == segments[b, q]) | (segments[b, k] == 0))
        if window is not None:
            visible = visible & (positions[b, q] - positions[b, k] < window)
        return visible

    return mask


def dense_attention(segments: Tensor, positions: Tensor, window: int) -> AttentionFunction:
    """Return attention with full boolean masks, for CPUs and if block masks fail."""
    order = torch.arange(segments.shape[1], device=segments.device)
    full = (order[:, None] >= order) & (
        (segments[:, :, None] == segments[:, None]) | (segments[:, None] == 0)
    )
    near = full & (positions[:, :, None] - positions[:, None] < window)

    def attend(q: Tensor, k: Tensor, v: Tensor, sliding: bool) -> Tensor:
        mask = (near if sliding else full)[:, None]
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)

    return attend


def mean_loss(network: Network, attend: AttentionFunction, row: Tensor) -> Tensor:
    """Return the mean loss over the tokens of rows (B, 4, LENGTH) that are trained on."""
    logits = network(row[:, TOKENS], row[:, POSITIONS], attend)
    return F.cross_entropy(logits.flatten(0, 1), row[:, TARGETS].flatten(), ignore_index=-1)


def dense_loss(network: Network, row: Tensor) -> Tensor:
    """Return `mean_loss` by dense attention."""
    attend = dense_attention(row[:, SEGMENTS], row[:, POSITIONS], network.config.sliding_window)
    return mean_loss(network, attend, row)


def run_layer(
    layer: nn.Module, x: Tensor, tables: tuple[Tensor, Tensor], mask: BlockMask
) -> Tensor:
    """Return what a layer makes of x, with attention by a block mask."""

    def attend(q: Tensor, k: Tensor, v: Tensor, sliding: bool) -> Tensor:
        if q.is_cuda:
            q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
        y = flex_attention(q, k, v, block_mask=mask, scale=1.0, enable_gqa=True)
        assert isinstance(y, Tensor)
        return y

    made = layer(x, tables, attend)
    assert isinstance(made, Tensor)
    return made


def head_loss(x: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
    """Return the mean loss of hidden states (B, T, hidden) over the tokens that are trained on."""
    logits = cap * torch.tanh(F.linear(x, weight).float() / cap)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


def block_loss(backend: str = "inductor") -> Loss:
    """Return a `mean_loss` by block attention.

    Each kind of layer is compiled once and shared by all layers of the kind, which takes a fraction
    of the time that compiling the whole network does.
    """

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(function, dynamic=False, backend=backend)

    make_mask, layer_step, head = (
        compiled(create_block_mask),
        compiled(run_layer),
        compiled(head_loss),
    )

    def loss(network: Network, row: Tensor) -> Tensor:
        config = network.config
        segments, positions = (row[:, i].int().contiguous() for i in (SEGMENTS, POSITIONS))
        size = (row.shape[0], None, row.shape[2], row.shape[2], row.device)
        masks = {
            sliding: make_mask(
                attention_mask(segments, positions, config.sliding_window if sliding else None),
                *size,
            )
            for sliding in (True, False)
        }
        tables = {sliding: network.tables(row[:, POSITIONS], sliding) for sliding in (True, False)}
        x = network.model.embed_tokens(row[:, TOKENS]) * config.hidden_size**0.5
        for index, layer in enumerate(network.model.layers):
            sliding = config.is_sliding(index)
            x = layer_step(layer, x, tables[sliding], masks[sliding])
        x = network.model.norm(x)
        weight = network.model.embed_tokens.weight
        made = head(x, weight, row[:, TARGETS], config.final_logit_softcapping)
        assert isinstance(made, Tensor)
        return made

    return loss


def choose_loss(network: Network, row: Tensor, dense: bool) -> Loss:
    """Return the fastest loss that works on this machine, after a try on one batch.

    Raises:
        RuntimeError: none works.
    """
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
                exact = dense_loss(network, row[:2]).item()
        except Exception as error:  # compilers fail in many ways; the next choice is simpler
            print(f"{name} failed: {type(error).__name__}: {str(error)[:2000]}", flush=True)
            continue
        print(
            f"{name}: loss {value:.4f}, dense {exact:.4f}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
        return loss
    raise RuntimeError("No way to compute the loss works on this machine; see the lines above.")


def export(network: Network, source: Path, out: Path) -> None:
    """Write weights, configuration and tokenizer: a folder that Transformers loads."""
    save_weights(network, out)
    save_configs(network.config, out)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (source / name).resolve() != (out / name).resolve():
            shutil.copyfile(source / name, out / name)


def train(
    schedule: Schedule, network: Network, supply: RowSupply, options: argparse.Namespace
) -> None:
    """Train until the time is over.

    Raises:
        RuntimeError: the loss is not finite.
    """
    device = next(network.parameters()).device
    draw = np.random.default_rng(schedule.seed)

    def batch() -> Tensor:
        made = torch.from_numpy(supply.batch(schedule.rows, draw))
        if device.type == "cuda":
            made = made.pin_memory().to(device, non_blocking=True)
        return made.long()

    loss_fn = choose_loss(network, batch(), options.dense)
    network.zero_grad(set_to_none=True)
    optimizer = MuonWithAdam(network)
    saves = list(schedule.saves)
    began = time.monotonic()
    seconds = min(schedule.minutes * 60, options.deadline - began)
    step, losses = 0, []
    while (share := (time.monotonic() - began) / seconds) < 1.0:
        row = batch()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = loss_fn(network, row)
        loss.backward()
        optimizer.step(schedule.rate_at(step, share))
        losses.append(loss.detach())
        step += 1
        if step % options.every == 0:
            mean = torch.stack(losses[-options.every :]).mean().item()  # waits for the device
            if not np.isfinite(mean):
                raise RuntimeError(f"The loss is {mean} at step {step}.")
            used = step * schedule.rows
            tokens = used * row.shape[2]
            speed = tokens / (time.monotonic() - began)
            print(
                f"step {step} loss {mean:.4f} share {share:.3f} tokens {tokens / 1e6:.0f}M "
                f"{speed / 1e3:.0f}k/s rows made {supply.made()} used {used}",
                flush=True,
            )
        if saves and share >= saves[0]:
            saves.pop(0)
            export(network, options.source, options.out)
    print(f"{step} steps, {step * schedule.rows * row.shape[2] / 1e6:.0f}M tokens", flush=True)


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line; `deadline` becomes a time of the monotonic clock."""
    parser = argparse.ArgumentParser(prog="eightfold.demo.train", description=main.__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=Schedule.minutes, help="time to train (%(default)s)")
    add("--deadline", type=float, default=1e9, help="most seconds from the start of the process")
    add("--rows", type=int, default=Schedule.rows, help="rows per step (%(default)s)")
    add("--length", type=int, default=LENGTH, help="tokens in a row (%(default)s)")
    add("--rate", type=float, default=Schedule.rate, help="highest learning rate (%(default)s)")
    add("--seed", type=int, default=0, help="(%(default)s)")
    add(
        "--workers",
        type=int,
        default=max(1, (os.cpu_count() or 2) - 1),
        help="processes that write traces (%(default)s)",
    )
    add("--capacity", type=int, default=60_000, help="rows kept in memory (%(default)s)")
    add("--every", type=int, default=100, help="steps between two lines of the log (%(default)s)")
    add("--source", type=Path, help="folder of a tokenizer; without it, one is built first")
    add("--resume", type=Path, help="folder of weights to start from")
    add("--out", type=Path, required=True, help="folder for the model")
    add(
        "--shape",
        type=json.loads,
        default={},
        help="sizes of the network that differ from the bundled model's, as JSON",
    )
    add("--dense", action="store_true", help="use no block masks")
    options = parser.parse_args(argv)
    options.deadline += time.monotonic()
    return options


def main(argv: list[str] | None = None) -> int:
    """Train the bundled model and save it."""
    options = parse_options(argv)
    if options.source is None:
        options.source = options.out
        build_tokenizer(options.out)
    supply = RowSupply(
        TraceEncoder(options.source),
        options.workers,
        options.capacity,
        options.seed,
        options.length,
    )
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    network = Network(replace(NetworkConfig(), **options.shape))
    if options.resume:
        load_weights(network, options.resume)
    count = sum(p.numel() for p in network.parameters())
    print(f"{count / 1e6:.2f}M parameters", flush=True)
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    supply.wait(min(options.capacity, options.rows * 4))
    schedule = Schedule(
        minutes=options.minutes, rows=options.rows, rate=options.rate, seed=options.seed
    )
    try:
        train(schedule, network, supply, options)
    finally:
        supply.close()
    export(network, options.source, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
