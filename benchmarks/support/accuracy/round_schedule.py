"""Fits the arms of `accuracy.py` into its time: rounds of problems that all start at once.

A round takes as long as its longest attempt, so that its time is known once it has been run. The
first round of each file decides which arms fit: the first arm gets half of the time and any other
all that is left, but none starts for which less is left than the longest arm has taken. Further
rounds of a file have the same arms, and start only if there is time for all of them. So attempts
are cut off by the time only if the first arm needs more than half of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from support.accuracy.arm_runs import Arm, ArmResult

from eightfold.solver.problem_set import Problem

RunRound = Callable[[Arm, str, Sequence[Problem], float], ArmResult]
"""Runs an arm: the arm, a name for the round, its problems, and seconds."""

SPARE = 1.1
"""Factor by which a round may take longer than the one before."""


class RoundSchedule:
    """Runs rounds for as long as there is time.

    Args:
        arms: the arms of each file, by its name, in the order in which they run.
        run: runs an arm on the problems of a round.
        time_left: returns the seconds that are left.
        done: called with a file's name and its results after each arm.

    Attributes:
        results: the results of each file's arms so far, by the file's name.
    """

    def __init__(
        self,
        arms: Mapping[str, Sequence[Arm]],
        run: RunRound,
        time_left: Callable[[], float],
        done: Callable[[str, list[ArmResult]], None],
    ) -> None:
        self.results: dict[str, list[ArmResult]] = {}
        self._arms = arms
        self._run = run
        self._time_left = time_left
        self._done = done
        self._longest = 0.0

    def run(self, samples: dict[str, list[Problem]], parallel: int) -> None:
        """Run the first rounds of all files, then the second ones, and so on.

        Args:
            samples: the problems of each file, by its name.
            parallel: number of problems in a round.
        """
        most = max(map(len, samples.values()))
        for start in range(0, most, parallel):
            for name, problems in samples.items():
                part = problems[start : start + parallel]
                if part and start == 0:
                    self._run_first(name, part)
                elif part and name in self.results:
                    self._run_further(name, part, start // parallel)

    def _run_first(self, name: str, problems: Sequence[Problem]) -> None:
        for index, arm in enumerate(self._arms[name]):
            left = self._time_left()
            if left < self._longest:
                return
            if index == 0 and len(self._arms[name]) > 1:
                left = max(left / 2, min(left, self._longest * SPARE))
            self._add(name, self._run(arm, f"{name}/0", problems, max(1.0, left)))

    def _run_further(self, name: str, problems: Sequence[Problem], number: int) -> None:
        results = self.results[name]
        needed = sum(result.seconds for result in results) / number
        if self._time_left() < needed * SPARE:
            return
        for arm in [result.arm for result in results]:
            left = self._time_left()
            if left < self._longest:
                return
            self._add(name, self._run(arm, f"{name}/{number}", problems, left))

    def _add(self, name: str, new: ArmResult) -> None:
        self._longest = max(self._longest, new.seconds)
        results = self.results.setdefault(name, [])
        for index, old in enumerate(results):
            if old.arm == new.arm:
                records, seconds = old.records + new.records, old.seconds + new.seconds
                results[index] = replace(old, records=records, seconds=seconds)
                break
        else:
            results.append(new)
        self._done(name, results)
