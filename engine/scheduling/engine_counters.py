"""Counters of an engine since its creation."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class EngineCounters:
    """Counts of steps, tokens and sequences; ``Engine.stats`` reports them under these names."""

    steps: int = 0
    computed_tokens: int = 0  # tokens that went through the model
    recomputed_tokens: int = 0  # of these, tokens computed before whose KV was given up
    sampled_tokens: int = 0
    dropped_tokens: int = 0  # sampled in flight while their sequence paused or finished
    drafted_tokens: int = 0  # computed as drafts
    accepted_tokens: int = 0  # of these, drafts that turned out right
    # How often a sequence had a draft at depth 1, 2, ... of a step, and how often one was right.
    drafted_by_depth: list[int] = field(default_factory=list)
    accepted_by_depth: list[int] = field(default_factory=list)
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

    def add_drafts(self, count: int, depth: int, accepted: int) -> None:
        """Count the drafts of one sequence in one step.

        Args:
            count: number of drafts.
            depth: depth of the deepest one.
            accepted: number of drafts that were right.
        """
        self.drafted_tokens += count
        self.accepted_tokens += accepted
        for counts, reached in (
            (self.drafted_by_depth, depth),
            (self.accepted_by_depth, accepted),
        ):
            counts += [0] * (depth - len(counts))
            for index in range(reached):
                counts[index] += 1
