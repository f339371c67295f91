"""Cells as Ray tasks: a dead worker, a task that never ends, several at once."""

import os
import time
from pathlib import Path

import pytest

from trialign_ray.actors.cell_tasks import RayPool
from trialign_ray.comparison.grid import GridSpec, Outcome, Task, run_grid
from trialign_ray.comparison.worlds import World

pytestmark = pytest.mark.ray
WORLD = World("A", "T2", 0)


def scripted(spec: GridSpec, task: Task) -> Outcome:
    """What the task's name says, in a Ray worker."""
    tries = Path(spec.root) / task.name
    with tries.open("a") as file:
        file.write("x")
    if task.name == "dies-always" or (task.name == "dies-once" and tries.read_text() == "x"):
        os._exit(1)
    if task.name == "hangs":
        time.sleep(300)
    return Outcome(task.name, "done")


def outcomes_of(names, tmp_path, timeout_s=60.0):
    pool = RayPool(GridSpec(str(tmp_path), None, ()), 0.5, timeout_s, scripted)
    tasks = [Task(name, "cell", WORLD) for name in names]
    try:
        return run_grid(tasks, pool, lambda task: False, lambda outcome: None)
    finally:
        pool.close()


def test_a_dead_worker_is_tried_again_and_a_hopeless_one_loses_its_task_alone(ray_local, tmp_path):
    outcomes = outcomes_of(["dies-once", "fine", "dies-always"], tmp_path)
    status = {name: o.status for name, o in outcomes.items()}
    assert status == {"dies-once": "done", "fine": "done", "dies-always": "failed"}
    assert (tmp_path / "dies-once").read_text() == "xx"
    assert (tmp_path / "dies-always").read_text() == "xxx"
    assert outcomes["dies-always"].error


def test_a_task_that_never_ends_is_ended(ray_local, tmp_path):
    outcomes = outcomes_of(["hangs", "fine"], tmp_path, timeout_s=8.0)
    assert outcomes["hangs"].status == "failed" and "no result in 8 s" in outcomes["hangs"].error
    assert outcomes["fine"].status == "done"
