"""Settings of the engine and of one sequence, checked when they are made."""

from dataclasses import dataclass
from types import NoneType
from typing import Any

DTYPES = ("float32", "bfloat16", "float16")
# Logits divided by less would overflow float32.
LEAST_TEMPERATURE = 1e-6


def _require(kinds: tuple[type, ...], words: str, **values: Any) -> None:
    """ValueError where a value is of another kind.

    A float or an array for a whole number would fail inside a step that others share.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ValueError(f"{name} must be {words}, not {value!r:.60}")


def _require_ids(name: str, ids: Any) -> None:
    _require((tuple, list, set, frozenset), "a tuple of token ids", **{name: ids})
    for token in ids:
        _require((int,), "token ids", **{name: token})


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of an :class:`~eightfold.engine.engine.Engine`.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``None`` for CUDA where there is a GPU that torch runs on.
        dtype: one of ``DTYPES``; ``None`` takes the checkpoint's own on a GPU, float32 on a CPU and
            on GPUs below compute capability 8.0, which do not compute in bfloat16.
        page_size: tokens per page, a power of two; ``None``: 64 for the GPU kernels, else 16.
        max_running: most sequences advanced in one step.
        max_step_tokens: token budget of one step; a longer prompt is computed in chunks of it.
        max_context: most tokens one sequence may hold; ``None``: what model and memory allow.
        full_pages, sliding_pages: pages of each pool; ``None``: sized from the free memory.
        memory_fraction: share of the free memory that the pools may take when sized; ``None``: 0.99
            of what weights, buffers and the largest step leave of a GPU's, 0.25 of the host's.
        offload_bytes: host memory for the KV of paused or preempted sequences; 0: none, their KV is
            recomputed.
        prefix_cache: keep the pages of finished sequences for prompts that begin alike.
        kernels: attend and draw by the GPU kernels; ``None``: where they run GPU and model
            (``eightfold.kernels.supported_gpus``; no capped scores), else by plain torch on the
            device
            that there is. True elsewhere raises.
        fused: run the layers by fused GPU kernels instead of transformers' modules; ``None``: with
            the kernels, for the architectures that have them (dense Gemma 4). True elsewhere
            raises.
        lookahead: steps planned while one is in flight, 0 or 1; ``None``: 1 with the kernels on a
            GPU, else 0.

    Raises:
        ValueError: where a value is out of range.
    """

    device: str | None = None
    dtype: str | None = None
    page_size: int | None = None
    max_running: int = 64
    max_step_tokens: int = 512
    max_context: int | None = None
    full_pages: int | None = None
    sliding_pages: int | None = None
    memory_fraction: float | None = None
    offload_bytes: int = 0
    prefix_cache: bool = True
    kernels: bool | None = None
    fused: bool | None = None
    lookahead: int | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        _require(
            (int,),
            "a whole number",
            max_running=self.max_running,
            max_step_tokens=self.max_step_tokens,
            offload_bytes=self.offload_bytes,
        )
        _require(
            (int, NoneType),
            "a whole number or None",
            page_size=self.page_size,
            max_context=self.max_context,
            full_pages=self.full_pages,
            sliding_pages=self.sliding_pages,
            lookahead=self.lookahead,
        )
        if self.kernels is False and self.fused:
            raise ValueError("fused layers need kernels; leave fused at None")
        size = self.page_size
        if size is not None and (size < 1 or size & (size - 1)):
            raise ValueError(f"page_size must be a power of two, not {self.page_size}")
        for name in ("max_running", "max_step_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("max_context", "full_pages", "sliding_pages"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise ValueError(f"{name} must be at least 2 or None, not {value}")
        if self.memory_fraction is not None and not 0 < self.memory_fraction <= 1:
            raise ValueError(f"memory_fraction must be in (0, 1], not {self.memory_fraction}")
        if self.offload_bytes < 0:
            raise ValueError(f"offload_bytes must not be negative, not {self.offload_bytes}")
        if self.lookahead not in (None, 0, 1):
            raise ValueError(f"lookahead must be 0, 1 or None, not {self.lookahead}")
        for name in ("kernels", "fused"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, bool):
                raise ValueError(f"{name} must be True, False or None, not {value!r}")
        if self.max_step_tokens < self.max_running:
            raise ValueError(
                f"max_step_tokens ({self.max_step_tokens}) must be at least max_running "
                f"({self.max_running}), so that every running sequence can advance in a step"
            )


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one sequence's tokens are drawn and where it stops.

    The filters apply in the order temperature, top-k, top-p, min-p, as in transformers; each later
    one sees the renormalised distribution the earlier ones left. The noise of a token is a function
    of (seed, position) only.

    Args:
        temperature: 0 takes the most likely token.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set whose probability reaches top_p; 1 keeps all.
        min_p: drop tokens less likely than min_p times the most likely one; 0 keeps all.
        seed: 64 bits, not negative.
        max_new_tokens: sampled tokens after which the sequence ends; ``None``: up to the context.
        pause_token_ids: tokens after which the sequence pauses with its pages kept.
        stop_token_ids: tokens that end it; ``None``: the checkpoint's own end tokens less the
            pause tokens.
        entropy: report the entropy (nats, at temperature 1, unfiltered) beside each token.

    Raises:
        ValueError: where a value is out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    max_new_tokens: int | None = None
    pause_token_ids: tuple[int, ...] = ()
    stop_token_ids: tuple[int, ...] | None = None
    entropy: bool = False

    def __post_init__(self) -> None:
        _require((int,), "a whole number", top_k=self.top_k, seed=self.seed)
        _require((int, NoneType), "a whole number or None", max_new_tokens=self.max_new_tokens)
        shares = {"temperature": self.temperature, "top_p": self.top_p, "min_p": self.min_p}
        _require((int, float), "a number", **shares)
        _require_ids("pause_token_ids", self.pause_token_ids)
        if self.stop_token_ids is not None:
            _require_ids("stop_token_ids", self.stop_token_ids)
        if not (self.temperature == 0 or LEAST_TEMPERATURE <= self.temperature < float("inf")):
            raise ValueError(
                f"temperature must be 0, or {LEAST_TEMPERATURE} or more, not {self.temperature}"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (all) or more, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be in [0, 1], not {self.min_p}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be in 0..2**64-1, not {self.seed}")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        both = set(self.pause_token_ids) & set(self.stop_token_ids or ())
        if both:
            raise ValueError(f"tokens {sorted(both)} are named as pause and as stop tokens")
