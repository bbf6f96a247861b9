"""Sampling parameters of one sequence, checked when they are made."""

from dataclasses import dataclass
from types import NoneType

from .type_checks import require_token_ids, require_type

# Dividing logits by less would overflow float32.
MIN_TEMPERATURE = 1e-6


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Settings by which one sequence is sampled, pauses and stops.

    The filters apply in the order temperature, top-k, top-p, min-p, as in transformers; each filter
    sees the renormalized distribution that the previous one left. The noise of a token is a
    function of (seed, position) only.

    Args:
        temperature: divisor of the logits; 0 takes the most likely token.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches ``top_p``; 1 keeps all.
        min_p: drop tokens less likely than ``min_p`` times the most likely one; 0 keeps all.
        seed: seed of the noise, an unsigned 64-bit integer.
        max_new_tokens: number of sampled tokens after which the sequence finishes; ``None`` leaves
            only the context as the limit.
        pause_token_ids: tokens after which the sequence pauses and keeps its pages.
        stop_token_ids: tokens that finish the sequence; ``None`` takes the checkpoint's end tokens,
            without the pause tokens.
        entropy: report the entropy of each token's distribution, in nats, at temperature 1 and
            before filtering.

    Raises:
        ValueError: if a value has the wrong type or is out of range.
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
        self._check_types()
        if not (self.temperature == 0 or MIN_TEMPERATURE <= self.temperature < float("inf")):
            raise ValueError(
                f"temperature must be 0 or at least {MIN_TEMPERATURE}, not {self.temperature}."
            )
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (all) or more, not {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}.")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be in [0, 1], not {self.min_p}.")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be in 0..2**64-1, not {self.seed}.")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}.")
        both = set(self.pause_token_ids) & set(self.stop_token_ids or ())
        if both:
            raise ValueError(f"Tokens {sorted(both)} are both pause and stop tokens; choose one.")

    def _check_types(self) -> None:
        require_type((int,), "a whole number", top_k=self.top_k, seed=self.seed)
        require_type((int, NoneType), "a whole number or None", max_new_tokens=self.max_new_tokens)
        shares = {"temperature": self.temperature, "top_p": self.top_p, "min_p": self.min_p}
        require_type((int, float), "a number", **shares)
        require_token_ids("pause_token_ids", self.pause_token_ids)
        if self.stop_token_ids is not None:
            require_token_ids("stop_token_ids", self.stop_token_ids)
