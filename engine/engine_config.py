"""Settings of the engine, checked when they are made."""

from dataclasses import dataclass
from types import NoneType

from .type_checks import require_type

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of an :class:`~eightfold.engine.engine.Engine`.

    Args:
        device: ``"cpu"`` or ``"cuda"``; ``None`` takes CUDA if PyTorch can run on the GPU.
        dtype: one of ``DTYPES``; ``None`` takes the checkpoint's own type on a GPU, and float32 on
            GPUs below compute capability 8.0, which do not compute in bfloat16, and on a CPU. There
            a checkpoint in bfloat16 of more than half a GiB keeps its type if the CPU computes in
            bfloat16 (AVX-512 or AMX).
        weights: ``"fp8"`` rounds the linear layers of an unquantized checkpoint to 8 bits while it
            is loaded, with a scale for each output; the embedding and the head stay. ``None`` takes
            weights as they are stored.
        kv: ``"fp8"`` keeps keys and values of full-attention layers in 8 bits, with a scale for
            each page and head; windows stay as they are. ``None`` keeps the activations' type.
        page_size: tokens per page, a power of two; ``None`` takes 64 with the GPU kernels, else 16.
        max_running: maximum number of sequences in one step.
        max_step_tokens: token budget of one step; longer prompts are computed in chunks.
        max_context: maximum number of tokens of one sequence; ``None`` takes what the model and the
            memory allow.
        full_pages: pages in the pool of the full-attention layers; ``None`` sizes it from the free
            memory.
        sliding_pages: pages in each pool of sliding-window layers; ``None`` sizes it likewise.
        memory_fraction: fraction of the free memory that the page pools may take when they are
            sized. ``None`` takes 0.99 of what the weights, the buffers and the largest step leave
            of a GPU's memory (0.9 without the GPU kernels), or 0.25 of the host's free memory.
        gpu_memory_bytes: most bytes of the GPU's memory that are in use once the cache is there,
            with those of other processes; ``None`` takes what there is. Tries out a smaller GPU.
        offload_bytes: host memory for the KV of paused or preempted sequences; with 0, their KV is
            recomputed.
        rewind_tokens: tokens by which a sequence with sliding windows can be rewound without being
            computed again; each pool of sliding-window layers is that much larger per sequence.
        prefix_cache: keep the pages of finished sequences for prompts that begin with the same
            tokens.
        kernels: attend and sample with the GPU kernels. ``None`` uses them if they support the GPU
            (``eightfold.kernels.supported_gpus``), else plain PyTorch. True raises an error if they
            do not.
        fused: run the layers with fused GPU kernels instead of the modules of transformers.
            ``None`` does so if the GPU kernels are used and the architecture has a row in
            ``eightfold.engine.inspection.families``. True raises an error if it has none.
        speculate: what drafts tokens that a step then verifies, which changes no token: ``"off"``;
            ``"ngram"``, which needs no weights; ``"auto"`` for the drafter in the model's
            folder ``drafter``, or for n-grams if the model has no such folder; or the path of a
            drafter's checkpoint.
        max_drafts: most drafts of a sequence in one step.
        always_draft: verify drafts even in steps that they make slower; for measurements.
        lookahead: number of steps planned while another one is in flight, 0 or 1; ``None`` takes 1
            with the GPU kernels, else 0.

    Raises:
        ValueError: if a value has the wrong type or is out of range.
    """

    device: str | None = None
    dtype: str | None = None
    weights: str | None = None
    kv: str | None = None
    page_size: int | None = None
    max_running: int = 64
    max_step_tokens: int = 512
    max_context: int | None = None
    full_pages: int | None = None
    sliding_pages: int | None = None
    memory_fraction: float | None = None
    gpu_memory_bytes: int | None = None
    offload_bytes: int = 0
    rewind_tokens: int = 0
    prefix_cache: bool = True
    kernels: bool | None = None
    fused: bool | None = None
    lookahead: int | None = None
    speculate: str = "off"
    max_drafts: int = 7
    always_draft: bool = False

    def __post_init__(self) -> None:
        self._check_types()
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}.")
        if self.weights not in (None, "fp8"):
            raise ValueError(f"weights must be 'fp8' or None, not {self.weights!r}.")
        if self.kv not in (None, "fp8"):
            raise ValueError(f"kv must be 'fp8' or None, not {self.kv!r}.")
        size = self.page_size
        if size is not None and (size < 1 or size & (size - 1)):
            raise ValueError(f"page_size must be a power of two, not {size}.")
        for name in ("max_running", "max_step_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("max_context", "full_pages", "sliding_pages"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise ValueError(f"{name} must be at least 2 or None, not {value}.")
        if self.memory_fraction is not None and not 0 < self.memory_fraction <= 1:
            raise ValueError(f"memory_fraction must be in (0, 1], not {self.memory_fraction}.")
        if self.gpu_memory_bytes is not None and self.gpu_memory_bytes < 1:
            raise ValueError(
                f"gpu_memory_bytes must be at least 1 or None, not {self.gpu_memory_bytes}."
            )
        if self.offload_bytes < 0:
            raise ValueError(f"offload_bytes must not be negative, not {self.offload_bytes}.")
        if self.rewind_tokens < 0:
            raise ValueError(f"rewind_tokens must not be negative, not {self.rewind_tokens}.")
        if not isinstance(self.speculate, str) or not self.speculate:
            raise ValueError(
                "speculate must be 'auto', 'off', 'ngram' or a drafter's folder, not "
                f"{self.speculate!r}."
            )
        if not 1 <= self.max_drafts <= 15:
            raise ValueError(f"max_drafts must be 1 to 15, not {self.max_drafts}.")
        if self.lookahead not in (None, 0, 1):
            raise ValueError(f"lookahead must be 0, 1 or None, not {self.lookahead}.")
        if self.kernels is False and self.fused:
            raise ValueError("fused layers need the GPU kernels; leave fused at None.")
        if self.max_step_tokens < self.max_running:
            raise ValueError(
                f"max_step_tokens ({self.max_step_tokens}) must be at least max_running "
                f"({self.max_running}), so that every running sequence can advance in a step."
            )

    @property
    def step_drafts(self) -> int:
        """Most drafts of a sequence that runners must be made for."""
        return 0 if self.speculate == "off" else self.max_drafts

    def _check_types(self) -> None:
        require_type(
            (int,),
            "a whole number",
            max_running=self.max_running,
            max_step_tokens=self.max_step_tokens,
            offload_bytes=self.offload_bytes,
            rewind_tokens=self.rewind_tokens,
            max_drafts=self.max_drafts,
        )
        require_type(
            (int, NoneType),
            "a whole number or None",
            page_size=self.page_size,
            max_context=self.max_context,
            full_pages=self.full_pages,
            sliding_pages=self.sliding_pages,
            gpu_memory_bytes=self.gpu_memory_bytes,
            lookahead=self.lookahead,
        )
        if not isinstance(self.always_draft, bool):
            raise ValueError(f"always_draft must be True or False, not {self.always_draft!r}.")
        for name in ("kernels", "fused"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, bool):
                raise ValueError(f"{name} must be True, False or None, not {value!r}.")
