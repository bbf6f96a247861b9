"""A solver for pipelines of Ray Data: a callable that adds answers to batches of rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..problem_set import Columns
from ..solver_config import SolverConfig, SolverError


class BatchSolver:
    """Solves the problems of a batch, for `ray.data.Dataset.map_batches`.

        dataset.map_batches(
            BatchSolver,
            fn_constructor_kwargs={"config": SolverConfig(model=...)},
            batch_size=4,
            compute=ray.data.ActorPoolStrategy(size=2),
            num_gpus=1,
        )

    Each actor holds one solver. A row's seeds follow from its id, so that neither the batch nor the
    actor changes what is sampled.

    Args:
        config: settings of the solver; None takes the defaults.
        columns: names of the columns that hold id and question; the answer is not read.
        parallel: problems of a batch that are solved at the same time.
    """

    def __init__(
        self,
        config: SolverConfig | None = None,
        columns: Columns | None = None,
        parallel: int = 1,
    ) -> None:
        from ..solver import Solver

        self._columns = columns or Columns()
        self._parallel = parallel
        self._solver = Solver((config or SolverConfig()).for_problems(parallel))

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Return the batch with columns for what came of each problem.

        Args:
            batch: columns by name; NumPy arrays, lists, or whatever can be iterated.

        Returns:
            The columns, and these: `solved_answer` (None without an answer), `solved_votes` (a JSON
            object), `solved_tokens`, `solved_seconds`, `solved_stopped` and `solved_faults` (a JSON
            list).

        Raises:
            SolverError: if the columns are not there, or a question is no text.
        """
        for name in (self._columns.id, self._columns.question):
            if name not in batch:
                raise SolverError(
                    f"The batch has no column {name!r}; its columns are {', '.join(batch)}."
                )
        pairs = list(zip(batch[self._columns.id], batch[self._columns.question], strict=True))
        with ThreadPoolExecutor(self._parallel) as threads:
            results = list(threads.map(lambda pair: self._solve(*pair), pairs))
        answers = [result.answer for result in results]
        votes = [
            json.dumps({str(answer): count for answer, count in result.votes.items()})
            for result in results
        ]
        return {
            **batch,
            "solved_answer": answers,
            "solved_votes": votes,
            "solved_tokens": [result.tokens for result in results],
            "solved_seconds": [result.seconds for result in results],
            "solved_stopped": [result.stopped for result in results],
            "solved_faults": [json.dumps(list(result.faults)) for result in results],
        }

    def _solve(self, id_: Any, question: Any) -> Any:
        if not isinstance(question, str):
            raise SolverError(f"The question of {id_} is no text.")
        return self._solver.solve_or_nothing(question, key=str(id_))
