"""The grid of a comparison as tasks with what each needs; a broken task does not lose the rest.

Tasks leave their results in files, so that a second run of the same grid does only what is missing.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from traceback import format_exc
from typing import Literal, Protocol

from trialign_ray.comparison.methods import Method
from trialign_ray.comparison.worlds import World

Status = Literal["done", "failed", "skipped"]


@dataclass(frozen=True)
class Task:
    """One piece of work: dialogues of a world, the gold of a track, or a method's cell."""

    name: str
    kind: Literal["dialogues", "track", "cell"]
    world: World
    method: Method | None = None
    setting: int = 0
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a task ended; error: one line, the log has the rest."""

    task: str
    status: Status
    error: str = ""
    wall_s: float = 0.0


@dataclass(frozen=True)
class GridSpec:
    """Where everything lies (absolute) and what all cells share."""

    root: str
    base_config: str | None
    sets: tuple[str, ...]


class Pool(Protocol):
    """Runs tasks somewhere, several at once."""

    def submit(self, task: Task) -> None: ...

    def wait(self) -> list[Outcome]:
        """Outcomes that have arrived; waits a bounded time for the first."""
        ...

    def running(self) -> int: ...


def grid_tasks(
    worlds: Sequence[World],
    methods: Sequence[Method],
    settings_of: Callable[[Method], Sequence[int]],
) -> list[Task]:
    """All tasks, each after what it needs."""
    tasks: dict[str, Task] = {}
    for world in worlds:
        dialogues = Task(f"{world.full.name}/dialogues", "dialogues", world.full)
        track = Task(f"{world.name}/track", "track", world, needs=(dialogues.name,))
        tasks |= {dialogues.name: dialogues, track.name: track}
        for method in methods:
            parts = tuple(f"{world.name}/{part}.0" for part in method.soup or ())
            for setting in settings_of(method):
                name = f"{world.name}/{method.name}.{setting}"
                tasks[name] = Task(name, "cell", world, method, setting, (track.name, *parts))
    return list(tasks.values())


def log_file(spec: GridSpec, task: Task) -> Path:
    """Where a task's output goes."""
    return Path(spec.root) / "logs" / f"{task.name}.log"


def run_task(spec: GridSpec, task: Task) -> Outcome:
    """Does one task in this process; every exception becomes an outcome, with its traceback in the
    log. Interrupts pass through."""
    from trialign_ray.comparison.cells import Cell, run_cell
    from trialign_ray.comparison.worlds import prepare_dialogues, prepare_track

    root, base = Path(spec.root), Path(spec.base_config) if spec.base_config else None
    path, started, sets = log_file(spec, task), monotonic(), list(spec.sets)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            if task.kind == "dialogues":
                prepare_dialogues(root, task.world, base, sets)
            elif task.kind == "track":
                prepare_track(root, task.world, base, sets)
            else:
                assert task.method is not None
                run_cell(root, Cell(task.world, task.method, task.setting), base, sets)
        except Exception as error:
            log.write(format_exc())
            return Outcome(task.name, "failed", first_line(error), monotonic() - started)
    return Outcome(task.name, "done", "", monotonic() - started)


def first_line(error: BaseException) -> str:
    """What to show of an error in a table."""
    return (str(error).strip() or repr(error)).splitlines()[0]


class LocalPool:
    """One task at a time in this process, without Ray: for tests."""

    def __init__(self, spec: GridSpec):
        self._spec, self._waiting = spec, list[Task]()

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def wait(self) -> list[Outcome]:
        return [run_task(self._spec, self._waiting.pop(0))] if self._waiting else []

    def running(self) -> int:
        return len(self._waiting)


def run_grid(
    tasks: Iterable[Task],
    pool: Pool,
    is_done: Callable[[Task], bool],
    on_outcome: Callable[[Outcome], None],
) -> dict[str, Outcome]:
    """Runs every task that is not done, in order, as soon as what it needs is done.

    A task whose need failed is skipped. Returns the outcome of every task by name.
    """
    waiting = list(tasks)
    outcomes: dict[str, Outcome] = {}

    def settle(outcome: Outcome) -> None:
        outcomes[outcome.task] = outcome
        on_outcome(outcome)

    while waiting or pool.running():
        held = []
        for task in waiting:
            states = [outcomes[n].status if n in outcomes else None for n in task.needs]
            if is_done(task):
                settle(Outcome(task.name, "done"))
            elif "failed" in states or "skipped" in states:
                broken = next(n for n in task.needs if outcomes[n].status != "done")
                settle(Outcome(task.name, "skipped", f"needs {broken}"))
            elif all(state == "done" for state in states):
                pool.submit(task)
            else:
                held.append(task)
        waiting = held
        for outcome in pool.wait():
            settle(outcome)
    return outcomes
