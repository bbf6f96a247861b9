"""The engine: token ids in, events out."""

import threading
import time
from collections import deque
from dataclasses import asdict
from operator import index
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from .engine_config import EngineConfig
from .events import Event
from .execution.cpu_runner import CpuRunner
from .execution.draft_chain import DeviceDrafter
from .execution.in_flight_step import InFlightStep
from .inspection.architecture import Architecture
from .loading.checkpoint import model_end_token_ids
from .model_errors import ModelError
from .quantization.meta_modules import describe_stored_weights
from .sampling_params import SamplingParams
from .scheduling.pages.page_tables import PageTables
from .scheduling.scheduler import Scheduler
from .speculation.drafter import Drafter
from .speculation.drafter_choice import choose_drafter, make_drafter
from .speculation.mtp.assistant_checkpoint import AssistantCheckpoint, LoadedAssistant
from .speculation.speculator import Speculator
from .startup.device_selection import (
    out_of_memory_message,
    uses_kernels,
)
from .startup.kv_cache_sizing import make_sized_runner
from .startup.model_load import inspect_model, load_model
from .startup.runner_factory import choose_fused, execution_path
from .startup.step_timing import measure_step_costs


class Engine:
    """Continuous batching over a Hugging Face causal language model.

    One thread calls :meth:`step`; any thread may call the other methods meanwhile.

    Args:
        model: a folder with config.json and safetensors files, or a model that exists already. An
            existing model keeps its device and dtype, but its attention is replaced for good: only
            this engine can run it afterwards, and no other model may share its ``config`` object.
        config: settings; see :class:`EngineConfig`.
        drafter: what drafts tokens, in the place of what ``config.speculate`` names, which must not
            be ``"off"`` then.

    Raises:
        UnsupportedModelError: if the engine cannot run the architecture; raised before any weight
            is read.
        CheckpointError: if files or tensors are missing, unexpected or broken.
        ModelError: if the memory does not suffice.
        ValueError: if a setting contradicts an existing model, or the device cannot be used.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        config: EngineConfig | None = None,
        drafter: Drafter | None = None,
    ) -> None:
        self.config = config = config or EngineConfig()
        if drafter is not None and config.speculate == "off":
            raise ValueError("A drafter is given, but speculate is 'off'; set it to 'auto'.")
        model, architecture, device = inspect_model(model, config)
        kernels = uses_kernels(device, config, architecture)
        choice = choose_fused(architecture, config, kernels)
        fused = choice.architecture
        decoded = fused or architecture
        uniform = kernels or fused is not None  # decode kernels: as many rows for each sequence
        drafting: Drafter | AssistantCheckpoint | LoadedAssistant | None
        drafting = drafter or choose_drafter(
            config.speculate, model, decoded, uniform, fused is not None
        )
        try:
            if not isinstance(model, PreTrainedModel):
                model = load_model(Path(model), architecture, fused, device, config, kernels)
            if isinstance(drafting, AssistantCheckpoint):
                drafting = drafting.load(device, model.dtype)
            sized = make_sized_runner(model, decoded, config, kernels, fused is not None)
        except torch.OutOfMemoryError as error:
            raise ModelError(out_of_memory_message(config, device)) from error
        self.device = device
        self.max_context = sized.max_context
        self.bytes_of = sized.bytes_of
        if isinstance(drafting, LoadedAssistant):
            self.bytes_of["drafter"] = drafting.nbytes
        self._vocabulary = model.get_input_embeddings().num_embeddings
        self._stored_weights = describe_stored_weights(model)
        self._runner = sized.runner
        self.path = execution_path(sized.runner, choice, architecture, config)
        self._speculator = self._make_speculator(drafting, decoded, uniform)
        self._lookahead = int(kernels) if config.lookahead is None else config.lookahead
        self._scheduler = Scheduler(
            PageTables(sized.groups, sized.page_size, config.prefix_cache),
            config.max_running,
            config.max_step_tokens,
            self.max_context,
            model_end_token_ids(model),
            self._speculator,
        )
        self._in_flight: deque[InFlightStep] = deque()
        self._early_events: list[Event] = []  # of a step committed before the next was launched
        self._changed = threading.Condition()

    def _make_speculator(
        self,
        drafting: Drafter | LoadedAssistant | None,
        architecture: Architecture,
        uniform: bool,
    ) -> Speculator | None:
        """Return what decides about drafts; ``None`` without a drafter."""
        if drafting is None:
            return None
        drafter = make_drafter(drafting, self._runner, architecture, self.config.max_drafts)
        if isinstance(drafter, DeviceDrafter) and not isinstance(self._runner, CpuRunner):
            self._runner.device_drafter = drafter
        costs = None
        if not self.config.always_draft:
            vocabulary = self._vocabulary
            costs = measure_step_costs(self._runner, self.config, self.max_context, vocabulary)
        return Speculator(drafter, costs, self.config.max_drafts, uniform)

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """End tokens of a sequence whose parameters name none."""
        return self._scheduler.stop_ids

    def submit(self, token_ids: list[int], params: SamplingParams | None = None) -> int:
        """Queue a prompt.

        Args:
            token_ids: the prompt, at least one token.
            params: sampling parameters; ``None`` takes the defaults.

        Returns:
            The number of the new sequence, by which all other methods name it.

        Raises:
            ValueError: if the prompt is empty, contains a token that the model does not know, or
                could never fit; in the last case, the message says how much room it needs.
        """
        tokens = self._checked(token_ids)
        with self._changed:
            self._changed.notify_all()
            return self._scheduler.submit(tokens, params or SamplingParams())

    def fork(self, seq: int, n: int, seeds: list[int]) -> list[int]:
        """Create ``n`` sequences with the tokens that ``seq`` has now.

        Full pages are shared, the last partial page is copied, and the last token is computed again
        for its logits. Forks of a paused sequence are paused.

        Args:
            seq: number of the original sequence.
            n: number of forks.
            seeds: one seed per fork; all other sampling parameters are those of the original.

        Returns:
            The numbers of the new sequences.

        Raises:
            ValueError: if ``seq`` is not live, if there are not ``n`` seeds, or if a seed is
                invalid; nothing is forked then.
        """
        if n != len(seeds):
            raise ValueError(f"{n} forks need {n} seeds, not {len(seeds)}.")
        with self._changed:
            self._changed.notify_all()
            return self._scheduler.fork(seq, list(seeds))

    def resume(self, seq: int, token_ids: list[int]) -> bool:
        """Append tokens to a paused sequence and let it run again.

        Only tokens that are not computed yet are computed. Without new tokens, the last token is
        computed for its logits, possibly a second time: a step with lookahead may have computed it
        already. No other case recomputes a token whose KV is kept.

        Args:
            seq: number of the sequence.
            token_ids: tokens to append, possibly none.

        Returns:
            False if the sequence has finished.

        Raises:
            ValueError: if the sequence is not paused, a token is unknown, or the tokens do not fit;
                the sequence is left as it was.
        """
        tokens = self._checked(token_ids)
        with self._changed:
            self._changed.notify_all()
            return self._scheduler.resume(seq, tokens)

    def rewind(self, seq: int, length: int) -> bool:
        """Drop a sequence's tokens from position ``length`` on, and pause it.

        :meth:`resume` goes on from there. The KV of the tokens before ``length`` is kept, except
        if the sequence has sliding windows and is rewound by more than
        ``EngineConfig.rewind_tokens``. No event reports a rewind, and none follows for tokens that
        a step in flight samples.

        Args:
            seq: number of a live sequence, running, waiting or paused.
            length: number of tokens to keep, at least one.

        Returns:
            False if the sequence has finished.

        Raises:
            ValueError: if there never was such a sequence, or ``length`` is out of range; nothing
                is changed then.
        """
        with self._changed:
            self._changed.notify_all()
            return self._scheduler.rewind(seq, length)

    def cancel(self, seq: int) -> bool:
        """Finish a sequence; the next step reports it.

        Returns:
            False if the sequence has finished already.

        Raises:
            ValueError: if there never was such a sequence.
        """
        with self._changed:
            self._changed.notify_all()
            return self._scheduler.cancel(seq)

    def has_work(self) -> bool:
        """Return whether :meth:`step` would do something now."""
        with self._changed:
            return self._has_work()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until there is work, for at most ``timeout`` seconds; return whether there is."""
        with self._changed:
            return self._changed.wait_for(self._has_work, timeout)

    def _has_work(self) -> bool:
        return self._scheduler.has_work or bool(self._early_events)

    def step(self) -> list[Event]:
        """Plan and launch one step, and commit the oldest step in flight.

        Without lookahead, the committed step is the one just launched; with lookahead, it is the
        one launched before. While drafts pay, the step before is committed first: drafts follow
        from its tokens. Only if the device has made them itself, its tokens are not waited for.

        Returns:
            Events of the committed step, and those of cancellations.

        Raises:
            Exception: whatever the device or the runner raises. Every sequence keeps its tokens,
                and later steps compute them again.
        """
        speculator = self._speculator
        try:
            waited, plan = None, None
            if self._in_flight and speculator is not None and speculator.active:
                if self._lookahead:
                    with self._changed:
                        plan = self._scheduler.plan_chained()
                if plan is None:
                    self._early_events += self._commit_oldest()
                    waited = time.perf_counter()
            if plan is None:
                with self._changed:
                    plan = self._scheduler.plan()
            if plan is not None:
                self._in_flight.append(self._runner.launch(plan))
                if speculator is not None:
                    idle = None if waited is None else time.perf_counter() - waited
                    with self._changed:
                        speculator.end_step(list(self._scheduler.queues.running), idle)
            if self._in_flight and (plan is None or len(self._in_flight) > self._lookahead):
                self._early_events += self._commit_oldest()
        except BaseException:
            self._in_flight.clear()
            with self._changed:
                self._scheduler.recover()
            raise
        with self._changed:
            events, self._early_events = self._early_events, []
            return events + self._scheduler.take_events()

    def _commit_oldest(self) -> list[Event]:
        """Wait for the oldest step in flight, and take in what it sampled."""
        oldest = self._in_flight[0]
        result = oldest.wait()
        self._in_flight.popleft()
        with self._changed:
            if self._speculator is not None:
                self._speculator.measure_drafting(oldest.drafting_seconds())
            return self._scheduler.commit(oldest.plan, result)

    def tokens(self, seq: int) -> list[int]:
        """Return a copy of a live sequence's tokens.

        Raises:
            ValueError: if the sequence is not live.
        """
        with self._changed:
            return self._scheduler.tokens(seq)

    def _checked(self, token_ids: list[int]) -> list[int]:
        """Return the tokens as ints; an invalid or unknown one would fail the whole batch."""
        try:
            tokens = [index(token) for token in token_ids]
        except TypeError:
            raise ValueError(f"Token ids must be whole numbers, not {token_ids!r:.60}.") from None
        if unknown := [token for token in tokens if not 0 <= token < self._vocabulary]:
            fault = f"Token {unknown[0]} is not in the vocabulary of {self._vocabulary}"
            raise ValueError(f"{fault}; use the model's own tokenizer.")
        return tokens

    def stats(self) -> dict[str, Any]:
        """Return the counters since the start and the state of the page pools.

        Returns:
            The fields of :class:`~.scheduling.engine_counters.EngineCounters`; per page pool,
            ``pages`` and how many of them are available (``pages_available``); and ``cache_bytes``,
            the size of the KV cache on the device.
        """
        with self._changed:
            pools = self._scheduler.page_tables.pools
            return {
                **asdict(self._scheduler.counters),
                "pages_available": [pool.available for pool in pools],
                "pages": [pool.capacity for pool in pools],
                "cache_bytes": self._runner.cache.nbytes,
            }

    def table(self) -> str:
        """Return a readable summary: path, what takes how much memory, how much context is left."""
        tables, running = self._scheduler.page_tables, self.config.max_running
        full_attention = [
            pool.capacity * tables.page_size
            for group, pool in zip(tables.groups, tables.pools, strict=True)
            if group.window is None
        ]
        room = min(full_attention, default=running * self.max_context)
        each = min(self.max_context, room // running)
        drafts = [] if self._speculator is None else [f"drafts: {self._speculator.summary()}"]
        sizes = [f"{name:<16}{size / 2**30:8.2f} GiB" for name, size in self.bytes_of.items()]
        return "\n".join(
            [
                f"path: {self.path}",
                *sizes,
                *([f"stored: {self._stored_weights}"] if self._stored_weights else []),
                *([] if self.config.kv is None else ["kv: full attention in FP8"]),
                f"context: {room} tokens in all, {each} for each of {running} sequences at once, "
                f"at most {self.max_context} for one",
                *drafts,
            ]
        )

    def check(self) -> None:
        """Assert every invariant of queues, sequences and page tables; for tests."""
        with self._changed:
            self._scheduler.check()
