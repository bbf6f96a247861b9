"""Counters of an engine since its creation."""

from dataclasses import dataclass


@dataclass(slots=True)
class EngineCounters:
    """Counts of steps, tokens and sequences; ``Engine.stats`` reports them under these names."""

    steps: int = 0
    computed_tokens: int = 0  # tokens that went through the model
    recomputed_tokens: int = 0  # of these, tokens computed before whose KV was given up
    sampled_tokens: int = 0
    dropped_tokens: int = 0  # sampled in flight while their sequence paused or finished
    prefix_hit_tokens: int = 0  # taken from the prefix cache instead of being computed
    forked_tokens: int = 0  # shared by forks instead of being computed
    pauses: int = 0
    rewinds: int = 0
    rewound_tokens: int = 0  # tokens that rewinds took away
    finished: int = 0
    cancelled: int = 0
    preempted: int = 0  # sequences that lost their pages while they wanted to run
    reclaimed: int = 0  # sequences that lost their pages while they were paused
    offloaded: int = 0  # of both, sequences whose KV was moved to host memory
    restored: int = 0  # sequences whose KV was brought back from host memory
