"""A crew in a process of its own.

Ray ends every process that is connected to a cluster once its head has not answered for a minute.
That must not be the process that records the run.
"""

from __future__ import annotations

from ..devices.child_process import ChildLostError, ChildProcess
from ..solver_config import SolverError
from .crew_messages import CrewPlan, CrewReport, Task

START_SECONDS = 300.0
"""Time to connect to the cluster and to look at its nodes."""

ANSWER_SECONDS = 90.0
"""Time for a crew to answer before it counts as lost; Ray's calls block without a head."""

GIVE_UP_SECONDS = 3.0
"""Time for a crew that could not join to end by itself; Ray may still wait for an answer."""

CLOSE_SECONDS = 25.0
"""Time for a crew to end its workers and its connection, or a cluster that it still starts."""


class CrewProcess:
    """A `Crew` in a child process.

    Args:
        plan: settings of the crew; its factory must be a function of a module.

    Raises:
        SolverError: if the cluster cannot be used.
    """

    def __init__(self, plan: CrewPlan) -> None:
        # Ray's threads print what the cluster's log holds, between the lines of the progress.
        self._child = ChildProcess(
            "eightfold.solver.scale.crew:Crew", plan, name="the crew", silent=True
        )
        try:
            self._child.ready(START_SECONDS)
        except ChildLostError as error:
            where = plan.address or "on this machine"
            raise SolverError(f"The cluster {where} cannot be joined: {error}") from error
        except BaseException:
            # Processes of a cluster that is being started would outlive a crew that is killed.
            self._child.close(CLOSE_SECONDS if plan.address is None else GIVE_UP_SECONDS)
            raise

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._child.pid

    def exchange(self, tasks: list[Task], seconds: float) -> CrewReport:
        """Hand out tasks and return what happened; see `Crew.exchange`.

        Raises:
            ChildLostError: if the process has ended, or does not answer.
        """
        report: CrewReport = self._child.call("exchange", tasks, seconds, timeout=ANSWER_SECONDS)
        return report

    def close(self) -> None:
        """End all workers and the process."""
        self._child.close(CLOSE_SECONDS)
