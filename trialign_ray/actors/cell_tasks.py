"""Cells of a comparison as Ray tasks, as many at once as the cluster has CPUs."""

import time
from collections.abc import Callable
from typing import Any

from trialign_ray.comparison.grid import GridSpec, Outcome, Task, first_line, run_task

POLL_S = 5.0


class RayPool:
    """Ray runs what was submitted. A worker that dies is tried again; if nothing at all ends within
    `timeout_s`, the oldest task is ended and counts as failed.

    Args: cpus_per_task: CPUs that a task reserves. run: what a task does, in a worker process.
    """

    def __init__(
        self,
        spec: GridSpec,
        cpus_per_task: float,
        timeout_s: float,
        run: Callable[[GridSpec, Task], Outcome] = run_task,
    ):
        import ray

        self._spec, self._timeout_s = ray.put(spec), timeout_s
        self._remote: Any = ray.remote(num_cpus=cpus_per_task, max_retries=2)(run)
        self._pending: dict[Any, Task] = {}
        self._last_end = time.monotonic()

    def submit(self, task: Task) -> None:
        reference = self._remote.options(name=f"trialign/{task.name}").remote(self._spec, task)
        self._pending[reference] = task

    def running(self) -> int:
        return len(self._pending)

    def wait(self) -> list[Outcome]:
        import ray
        from ray.exceptions import RayError

        if not self._pending:
            return []
        ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=POLL_S)
        outcomes = []
        for reference in ready:
            task = self._pending.pop(reference)
            self._last_end = time.monotonic()
            try:
                outcomes.append(ray.get(reference, timeout=POLL_S))
            except RayError as error:
                outcomes.append(Outcome(task.name, "failed", first_line(error)))
        return outcomes + self._overdue()

    def _overdue(self) -> list[Outcome]:
        import ray

        if not self._pending or time.monotonic() - self._last_end < self._timeout_s:
            return []
        reference = next(iter(self._pending))
        task = self._pending.pop(reference)
        ray.cancel(reference, force=True)
        self._last_end = time.monotonic()
        return [Outcome(task.name, "failed", f"no result in {self._timeout_s:g} s")]

    def close(self) -> None:
        """Ends what still runs."""
        import ray

        for reference in self._pending:
            ray.cancel(reference, force=True)
        self._pending.clear()
