"""`trialign compare`: choose every method's setting on one world, then run all methods in all.

Everything lies under one root; what is there already is not done again.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trialign_ray.checkpoint import write_json
from trialign_ray.comparison.cells import Cell, cell_file
from trialign_ray.comparison.grid import GridSpec, Outcome, Pool, Task, grid_tasks, run_grid
from trialign_ray.comparison.methods import Method, methods_by_name
from trialign_ray.comparison.worlds import World, read_json, world_dir, worlds_by_name
from trialign_ray.errors import ConfigError
from trialign_ray.progress import Progress
from trialign_ray.run_directory import git_commit

RECORD = "comparison.json"
TUNING_SEED = 100
"""Seed of the world on which settings are chosen; no row of a table is of it."""
TUNING_TRACK = "T2"
"""Its track, if that is compared: neither nothing nor everything is verified."""


@dataclass(frozen=True)
class Plan:
    """What is compared where. tuning: the world on which settings are chosen; None: the first
    setting of each method is used as it is."""

    methods: tuple[str, ...]
    knobs: tuple[str, ...]
    tracks: tuple[str, ...]
    seeds: tuple[int, ...]
    tuning: World | None
    base_config: str | None = None
    base_sha256: str | None = None
    sets: tuple[str, ...] = ()
    command: str = ""

    @property
    def worlds(self) -> list[World]:
        return worlds_by_name(list(self.knobs), list(self.tracks), list(self.seeds))


@dataclass
class Comparison:
    """The run of a plan under `root` (absolute). Failed tasks are kept by name."""

    plan: Plan
    root: Path
    progress: Progress
    failed: dict[str, str] = field(default_factory=dict)

    def run(self, pool_for: Callable[[GridSpec], Pool]) -> None:
        """Chooses settings, then runs the grid; what fails is in `failed`, the rest is done."""
        methods = methods_by_name(list(self.plan.methods) or None)
        pool = pool_for(GridSpec(str(self.root), self.plan.base_config, self.plan.sets))
        choice: dict[str, Any] = {}
        if self.plan.tuning is not None:
            from trialign_ray.comparison.chosen import choose_settings

            tasks = grid_tasks([self.plan.tuning], methods, every_setting)
            self._run("tune", tasks, pool)
            choice = choose_settings(self.root, self.plan.tuning, methods)
        chosen = {m.name: choice.get(m.tuned_as or m.name, {}).get("index", 0) for m in methods}
        self._write_record(methods, chosen, choice)
        tasks = grid_tasks(self.plan.worlds, methods, lambda m: (chosen[m.name],))
        self._run("compare", tasks, pool)

    def _run(self, stage: str, tasks: Sequence[Task], pool: Pool) -> None:
        done = 0

        def on_outcome(outcome: Outcome) -> None:
            nonlocal done
            done += 1
            if outcome.status != "done":
                self.failed[outcome.task] = outcome.error
            note = f"{outcome.task} {outcome.status}"
            failed = f", {len(self.failed)} failed" if self.failed else ""
            self.progress.display.advance(stage, done, note + failed)

        with self.progress.stage(stage, len(tasks)):
            run_grid(tasks, pool, self._is_done, on_outcome)

    def _is_done(self, task: Task) -> bool:
        if task.kind != "cell" or task.method is None:
            return (world_dir(self.root, task.world) / "critic/reference_scores.parquet").is_file()
        return cell_file(self.root, Cell(task.world, task.method, task.setting)).is_file()

    def _write_record(self, methods: list[Method], chosen: dict[str, int], choice: Any) -> None:
        tuning = self.plan.tuning
        record = {
            "plan": plan_tree(self.plan),
            "methods": [m.name for m in methods],
            "knobs": self.plan.knobs,
            "tracks": self.plan.tracks,
            "seeds": self.plan.seeds,
            "tuning_world": tuning.name if tuning else None,
            "chosen": chosen,
            "choice": choice,
            "git_commit": git_commit(),
            "command": self.plan.command,
        }
        write_json(self.root / RECORD, record)


def plan_tree(plan: Plan) -> dict[str, Any]:
    """The plan as it stands in `comparison.json`."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(plan).items()}


def open_root(plan: Plan, root: Path, resume: bool) -> Path:
    """The comparison's folder, absolute; created, or opened to go on.

    Raises: ConfigError if it holds another plan's cells, or is there and `resume` is not asked for.
    """
    root = root.expanduser().resolve()
    record = root / RECORD
    if record.is_file():
        if not resume:
            raise ConfigError(
                f"{root} holds a comparison; go on with --resume, or choose another --run-dir"
            )
        before, now = read_json(record)["plan"], plan_tree(plan)
        for key in ("tuning", "base_sha256", "sets"):
            if before.get(key) != now[key]:
                raise ConfigError(
                    f"{root} was started with {key} {before[key]}, now it is {now[key]}; choose "
                    "another --run-dir"
                )
    root.mkdir(parents=True, exist_ok=True)
    if not record.is_file():
        write_json(record, {"plan": plan_tree(plan)})
    return root


def every_setting(method: Method) -> Sequence[int]:
    """All settings that a method may choose from; what takes over another's choice has none to
    try."""
    return () if method.tuned_as else range(len(method.settings))
