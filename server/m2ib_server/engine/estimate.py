"""Estimates how long admitted jobs take: their next turn, and until a newcomer is done."""

from collections.abc import Collection, Mapping
from typing import Any

from m2ib_server.engine.cost import CostModel
from m2ib_server.engine.job import STAGE_BY_ROLE, Job, Stage
from m2ib_server.engine.schedule import Priority, finish_seconds
from m2ib_server.engine.turn import rows_by_role
from m2ib_server.package import Role
from m2ib_server.settings import EngineLimits


class Estimator:
    """Seconds, from what rows were seen to cost and what jobs still have to evaluate."""

    def __init__(self, limits: EngineLimits, costs: CostModel) -> None:
        """Estimate under these limits with these costs."""
        self._limits = limits
        self._costs = costs

    def next_turn(self, job: Job[Any]) -> float:
        """Estimate the job's next turn; of one that has not started, it encodes."""
        if job.is_started:
            return self._costs.seconds(job.model, rows_by_role(job.turn(self._limits.max_rows)))
        encoding = {role: rows for role, rows in job.rows_left.items() if STAGE_BY_ROLE[role] is Stage.ENCODE}
        return sum(self._turns(job, encoding))

    def until_done(self, job: Job[Any], priority: Priority, jobs: Collection[Job[Any]]) -> float:
        """Estimate how long the job takes in its class, beside all jobs that are admitted."""
        others = [(one.priority, self._left(one)) for one in jobs if one is not job]
        bulk = [self._longest_turn(one) for one in jobs if one.priority is Priority.BULK]
        return finish_seconds(
            self._left(job),
            priority,
            others,
            bulk_turn=max(bulk, default=0.0),
            bulk_patience=self._limits.bulk_patience_ms / 1000,
        )

    def wait(self, job: Job[Any], jobs: Collection[Job[Any]]) -> float:
        """Estimate how much longer a newcomer takes beside all jobs that are admitted than it would alone."""
        return max(0.0, self.until_done(job, job.priority, jobs) - self._left(job))

    def until_end(self, running: Collection[Job[Any]], priority: Priority | None = None) -> float:
        """Estimate when the first of the running jobs, of a class or of any, is done; 0 where there is none."""
        candidates = [job for job in running if priority in (None, job.priority)]
        return min((self.until_done(job, job.priority, running) for job in candidates), default=0.0)

    def _left(self, job: Job[Any]) -> float:
        return self._costs.seconds(job.model, job.rows_left)

    def _longest_turn(self, job: Job[Any]) -> float:
        return max(self._turns(job, job.rows_left), default=0.0)

    def _turns(self, job: Job[Any], rows_left: Mapping[Role, int]) -> list[float]:
        """Estimate a turn of each graph that the job has still to run."""
        most = min(self._limits.max_rows, job.contender.rows)
        return [self._costs.seconds(job.model, {role: min(rows, most)}) for role, rows in rows_left.items()]
