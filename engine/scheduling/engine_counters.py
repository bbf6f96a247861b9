"""Counters of an engine since it was made."""

from dataclasses import dataclass


@dataclass(slots=True)
class EngineCounters:
    """All counts are of tokens, steps or sequences.

    ``computed_tokens`` went through the model; of them ``recomputed_tokens`` had been computed
    before and their KV was given back. ``dropped_tokens`` were sampled by a step in flight while
    their sequence paused or ended.
    """

    steps: int = 0
    computed_tokens: int = 0
    recomputed_tokens: int = 0
    sampled_tokens: int = 0
    dropped_tokens: int = 0
    prefix_hit_tokens: int = 0  # taken from the prefix cache instead of computed
    forked_tokens: int = 0  # shared by forks instead of computed
    pauses: int = 0
    finished: int = 0
    cancelled: int = 0
    preempted: int = 0  # running sequences that gave their pages back
    reclaimed: int = 0  # paused ones
    offloaded: int = 0  # of both, those whose KV went to the host
    restored: int = 0
