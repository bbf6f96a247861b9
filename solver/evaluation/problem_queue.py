"""The problems of a run that wait, read from their files only when they are taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator

from ..problem_set import Problem


class ProblemQueue:
    """Gives out each problem that is not finished; those that were put off come last.

    Not thread-safe.

    Args:
        problems: all problems of the run.
        total: how many they are.
        finished: ids of those that are finished; it may grow.
        done: number of those.

    Attributes:
        left: number of problems that wait.
    """

    def __init__(
        self, problems: Iterable[Problem], total: int, finished: Container[str], done: int
    ) -> None:
        self.left = total - done
        self._rest: Iterator[Problem] = (one for one in problems if one.id not in finished)
        self._put_off: deque[Problem] = deque()

    def take(self) -> Problem | None:
        """Return the next problem, or None if none waits."""
        problem = next(self._rest, None)
        if problem is None and self._put_off:
            problem = self._put_off.popleft()
        if problem is not None:
            self.left -= 1
        return problem

    def put_off(self, problem: Problem) -> None:
        """Let a problem that was taken wait again, behind the others."""
        self._put_off.append(problem)
        self.left += 1

    def clear(self) -> None:
        """Give out nothing any more."""
        self._rest = iter(())
        self._put_off.clear()
        self.left = 0
