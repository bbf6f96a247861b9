"""The engine: token ids in, events out."""

import threading
from collections import deque
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from operator import index
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from .engine_config import EngineConfig
from .events import Event
from .execution.in_flight_step import Flight
from .inspection import architecture as architectures
from .loading.checkpoint import DuringLoad, load_weights, model_end_token_ids, read_config
from .model_errors import ModelError
from .sampling_params import SamplingParams
from .scheduling.page_tables import PageTables
from .scheduling.scheduler import Scheduler
from .startup.device_selection import by_kernels, device_named, device_of, dtype_for, too_large
from .startup.kernel_warmup import rehearsal
from .startup.kv_cache_sizing import allocation, fused_architecture, place


class Engine:
    """Continuous batching over a Hugging Face causal language model.

    One thread calls :meth:`step`; any thread may call the other methods meanwhile.

    Args:
        model: a folder with config.json and safetensors files, or a model already made. The
            latter stays where it is and as it is, but its attention is replaced for good: only this
            engine can run it afterwards, and no other model may share its ``config`` object.
        config: see :class:`EngineConfig`.

    Raises:
        UnsupportedModelError: where a layer cannot be paged, before any weight is read.
        CheckpointError: where files or tensors are missing, surplus or broken.
        ModelError: where the memory does not suffice.
    """

    def __init__(
        self, model: str | Path | PreTrainedModel, config: EngineConfig | None = None
    ) -> None:
        self.config = config = config or EngineConfig()
        if isinstance(model, PreTrainedModel):
            architecture = architectures.inspect(model.config)
            model = architectures.text_model(model, architecture)
            device = device_of(model, config)
        else:
            device = device_named(config.device)
            architecture = architectures.inspect(read_config(model))
        kernels = by_kernels(device, config, architecture)
        fused = fused_architecture(architecture, config, kernels)
        try:
            if not isinstance(model, PreTrainedModel):
                dtype, allocate = dtype_for(config.dtype, device), allocation(fused)
                during_load: DuringLoad = nullcontext
                if kernels:  # they compile while the disk is waited for
                    during_load = partial(
                        rehearsal,
                        architecture=fused or architecture,
                        config=config,
                        fused=fused is not None,
                    )
                model = load_weights(model, architecture, device, dtype, allocate, during_load)
            placement = place(model, fused or architecture, config, kernels, fused is not None)
        except torch.OutOfMemoryError as error:
            raise ModelError(too_large(config, device)) from error
        self.device = device
        self.max_context = placement.max_context
        self.bytes_of = placement.bytes_of
        self._runner = placement.runner
        lookahead = config.lookahead
        self._lookahead = int(kernels) if lookahead is None else lookahead
        self._scheduler = Scheduler(
            PageTables(placement.groups, placement.page_size, config.prefix_cache),
            config.max_running,
            config.max_step_tokens,
            self.max_context,
            model_end_token_ids(model),
        )
        self._vocabulary = model.get_input_embeddings().num_embeddings
        self._flights: deque[Flight] = deque()
        self._changed = threading.Condition()

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """End tokens of a sequence that names none of its own."""
        return self._scheduler.stop_ids

    def submit(self, token_ids: list[int], params: SamplingParams | None = None) -> int:
        """Queue a prompt; returns the sequence's number.

        Raises:
            ValueError: where it is empty, has a token the model does not know, or can never fit;
                the message then says what room it needs.
        """
        tokens = self._known(token_ids)
        with self._changed:
            self._changed.notify_all()
            return self._scheduler.submit(tokens, params or SamplingParams())

    def fork(self, seq: int, n: int, seeds: list[int]) -> list[int]:
        """``n`` more sequences with the tokens that ``seq`` has now, one per seed.

        Full pages are shared, the last partial one is copied, and the last token is computed again
        for its logits. Forks of a paused sequence are paused.

        Raises:
            ValueError: where ``seq`` is not live, there are not ``n`` seeds or one is no seed;
                there are no forks then.
        """
        if n != len(seeds):
            raise ValueError(f"{n} forks need {n} seeds, not {len(seeds)}")
        with self._changed:
            self._changed.notify_all()
            return self._scheduler.fork(seq, list(seeds))

    def resume(self, seq: int, token_ids: list[int]) -> bool:
        """Append tokens to a paused sequence; only they are computed. False where it has ended.

        Without any token the last one is computed: a second time where a step with lookahead had
        computed it already, the one case that recomputes.

        Raises:
            ValueError: where it is not paused, a token is unknown, or they do not fit; it stays as
                it was.
        """
        tokens = self._known(token_ids)
        with self._changed:
            self._changed.notify_all()
            return self._scheduler.resume(seq, tokens)

    def cancel(self, seq: int) -> bool:
        """End a sequence; the next step reports it. False where it has ended already."""
        with self._changed:
            self._changed.notify_all()
            return self._scheduler.cancel(seq)

    def has_work(self) -> bool:
        """Whether :meth:`step` would do something now."""
        with self._changed:
            return self._scheduler.has_work

    def wait(self, timeout: float | None = None) -> bool:
        """Block until there is work, at most ``timeout`` seconds; whether there is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._scheduler.has_work, timeout)

    def step(self) -> list[Event]:
        """Plan, run, commit. With lookahead, the step committed is the one launched before.

        Where the device fails, every sequence keeps its tokens and is computed anew by later steps;
        the error is raised all the same.
        """
        try:
            with self._changed:
                plan = self._scheduler.plan()
            if plan is not None:
                self._flights.append(self._runner.launch(plan))
            if self._flights and (plan is None or len(self._flights) > self._lookahead):
                flight = self._flights[0]
                sampled = flight.wait()
                self._flights.popleft()
                with self._changed:
                    return self._scheduler.commit(flight.plan, sampled)
        except BaseException:
            self._flights.clear()
            with self._changed:
                self._scheduler.recover()
            raise
        with self._changed:
            return self._scheduler.take_events()

    def tokens(self, seq: int) -> list[int]:
        """A copy of a live sequence's tokens.

        Raises:
            ValueError: where it has ended.
        """
        with self._changed:
            return self._scheduler.tokens(seq)

    def _known(self, token_ids: list[int]) -> list[int]:
        """The tokens as ints. One that is none or unknown would fail the whole batch."""
        try:
            tokens = [index(token) for token in token_ids]
        except TypeError:
            raise ValueError(f"token ids must be whole numbers, not {token_ids!r:.60}") from None
        for token in tokens:
            if not 0 <= token < self._vocabulary:
                raise ValueError(f"token {token} is not in the vocabulary of {self._vocabulary}")
        return tokens

    def stats(self) -> dict[str, Any]:
        """Counters since the start (see `EngineCounters`) and pages now."""
        with self._changed:
            memory = self._scheduler.page_tables
            return {
                **asdict(self._scheduler.counters),
                "pages_available": [pool.available for pool in memory.pools],
                "pages": [pool.capacity for pool in memory.pools],
                "cache_bytes": self._runner.cache.nbytes,
            }

    def table(self) -> str:
        """Lines for people: what takes how much memory, and how much context that leaves."""
        memory, running = self._scheduler.page_tables, self.config.max_running
        full = [
            pool.capacity * memory.page_size
            for group, pool in zip(memory.groups, memory.pools, strict=True)
            if group.window is None
        ]
        room = min(full, default=running * self.max_context)
        each = min(self.max_context, room // running)
        sizes = [f"{name:<16}{size / 2**30:8.2f} GiB" for name, size in self.bytes_of.items()]
        return "\n".join(
            [
                *sizes,
                f"context: {room} tokens in all, {each} for each of {running} sequences at once, "
                f"at most {self.max_context} for one",
            ]
        )

    def check(self) -> None:
        """Assert that every page is owned as often as its count says, and every other invariant."""
        with self._changed:
            self._scheduler.check()
