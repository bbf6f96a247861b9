"""Train the bundled model's drafter within a given time, on a GPU or a CPU.

``python -m eightfold.demo.drafter.train_drafter --minutes 1`` trains for the model in the package,
and writes to its sub-folder ``drafter``. The model's weights stay as they are: after each training
of the model, this has to be run once more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from .. import model_path
from ..muon_optimizer import MuonWithAdam
from ..training_network import Network, load_weights
from ..training_rows import RowSupply, TraceEncoder
from .drafter_loss import DraftLoss, choose_starts, draft_loss
from .drafter_network import TargetStates, new_drafter, read_network_config, target_states

MOST_PARAMETERS = 2_000_000


class GradientStep:
    """Computes a batch's loss and its gradients, on a GPU as a captured graph.

    Args:
        drafter: what is trained.
        network: the model that it drafts for.
        row, starts: a first batch, whose shapes all others have.
    """

    def __init__(
        self, drafter: torch.nn.Module, network: Network, row: Tensor, starts: Tensor
    ) -> None:
        self._drafter, self._network = drafter, network
        self._row, self._starts = row.clone(), starts.clone()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._found: DraftLoss | None = None
        self._last_row: Tensor | None = None
        self._states: TargetStates | None = None
        self._gradients: list[tuple[torch.nn.Parameter, Tensor | None]] = []
        if row.is_cuda:
            try:
                self._capture()
            except RuntimeError as error:
                print(f"without a graph: {str(error)[:500]}", flush=True)
                self._graph = None

    def __call__(self, row: Tensor, starts: Tensor) -> DraftLoss:
        """Return the loss; each parameter has its gradient then."""
        if row is not self._last_row:
            self._row.copy_(row)
            self._last_row, self._states = row, None
        self._starts.copy_(starts)
        if self._graph is None or self._found is None:
            return self._compute()
        self._graph.replay()
        for parameter, gradient in self._gradients:  # an optimizer may have taken it away
            parameter.grad = gradient
        return self._found

    def _compute(self) -> DraftLoss:
        row, device = self._row, self._row.device.type
        for parameter in self._drafter.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda", cache_enabled=False):
            states = self._states or target_states(self._network, row)
            found = draft_loss(self._drafter, self._network, row, states, self._starts)
        if device == "cpu":  # takes longer than the drafter: kept for the same rows
            self._states = states
        found.loss.backward()
        return DraftLoss(found.loss.detach(), found.overlap)

    def _capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._compute()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._found = self._compute()
        self._gradients = [(p, p.grad) for p in self._drafter.parameters()]


def train(
    drafter: torch.nn.Module, network: Network, supply: RowSupply, options: argparse.Namespace
) -> None:
    """Train `drafter` until the time is over.

    Raises:
        RuntimeError: the loss is not finite.
    """
    device = next(network.parameters()).device
    draw = np.random.default_rng(options.seed)
    generator = torch.Generator(device).manual_seed(options.seed)
    optimizer = MuonWithAdam(drafter)

    def rows() -> Tensor:
        return torch.from_numpy(supply.batch(options.rows, draw)).to(device).long()

    step, row = 0, rows()

    def inputs() -> tuple[Tensor, Tensor]:
        nonlocal row
        if step % options.reuse == 0:
            row = rows()
        return row, choose_starts(row, options.starts, generator)

    step_loss = GradientStep(drafter, network, *inputs())
    began = time.monotonic()
    while (share := (time.monotonic() - began) / (options.minutes * 60)) < 1.0:
        found = step_loss(*inputs())
        rate = options.rate * min(1.0, (step + 1) / 30) * max(0.02, min(1.0, 1.6 * (1 - share)))
        optimizer.step(rate)
        step += 1
        if step % options.every == 0:
            report(f"step {step} share {share:.2f}", found)
            if not torch.isfinite(found.loss):
                raise RuntimeError(f"The loss is {found.loss.item()} at step {step}.")
    report(f"{step} steps", step_loss(*inputs()))


def report(what: str, found: DraftLoss) -> None:
    """Print a line of the log."""
    overlaps = ", ".join(f"{value:.3f}" for value in found.overlap.tolist())
    print(f"{what}: loss {found.loss.item():.4f}, overlap by depth {overlaps}", flush=True)


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="eightfold.demo.drafter.train_drafter")
    add = parser.add_argument
    gpu = torch.cuda.is_available()
    add("--minutes", type=float, default=1.0 if gpu else 10.0, help="time to train (%(default)s)")
    add("--rows", type=int, default=16 if gpu else 2, help="rows per step (%(default)s)")
    add("--length", type=int, default=1024, help="tokens in a row (%(default)s)")
    add("--starts", type=int, default=256, help="places in a row to draft from (%(default)s)")
    reuse = 1 if gpu else 8
    add("--reuse", type=int, default=reuse, help="steps with the same rows (%(default)s)")
    add("--rate", type=float, default=4e-3, help="highest learning rate (%(default)s)")
    add("--seed", type=int, default=0, help="(%(default)s)")
    add("--every", type=int, default=50, help="steps between two lines of the log (%(default)s)")
    add(
        "--workers",
        type=int,
        default=max(1, min(8, (os.cpu_count() or 2) - 1)),
        help="processes that write traces (%(default)s)",
    )
    add("--model", type=Path, default=model_path(), help="folder of the model (%(default)s)")
    add("--resume", type=Path, help="folder of a drafter to go on from")
    add("--out", type=Path, help="folder for the drafter (MODEL/drafter)")
    options = parser.parse_args(argv)
    options.out = options.out or options.model / "drafter"
    return options


def main(argv: list[str] | None = None) -> int:
    """Train a drafter and save it."""
    options = parse_options(argv)
    encoder = TraceEncoder(options.model)
    supply = RowSupply(encoder, options.workers, 4000, 1000 + options.seed, options.length)
    try:
        supply.wait((4 if torch.cuda.is_available() else 100) * options.rows)
        if not torch.cuda.is_available():
            supply.close()  # all cores are for the training; its rows stay
        torch.manual_seed(options.seed)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = Network(read_network_config(options.model))
        load_weights(network, options.model)
        network.to(device).eval().requires_grad_(False)
        table = json.loads((options.model / "config.json").read_text(encoding="utf-8"))
        drafter = new_drafter(table)
        if options.resume:
            stored = load_file(options.resume / "model.safetensors")
            drafter.load_state_dict(
                stored | {"lm_head.weight": stored["model.embed_tokens.weight"]}
            )
        drafter.to(device)
        count = sum(p.numel() for p in drafter.parameters())
        print(f"{count / 1e6:.2f}M parameters", flush=True)
        assert count <= MOST_PARAMETERS
        train(drafter, network, supply, options)
    finally:
        supply.close()
    drafter.bfloat16().save_pretrained(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
