"""Trials of a sweep with known figures, without any training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from trialign_ray.checks import check_names
from trialign_ray.config import load_config, to_yaml
from tuning.search_points import spread_points
from tuning.search_space import Space, read_space
from tuning.sweep_plan import METRICS, SweepPlan, TrialRecord
from tuning.sweep_results import overhead
from tuning.sweep_summary import SweepSummary, chosen_and_tested

STARTED_AT = 1_000_000.0
OBJECTIVES = [
    (0.90, 0.80, 0.70),
    (0.90, 0.80, 0.70),  # the same again: both are kept
    (0.80, 0.85, 0.90),
    (0.70, 0.60, 0.95),
    (0.70, 0.60, 0.60),  # beaten
    (0.60, 0.50, 0.94),  # beaten
    (0.88, 0.75, 0.93),
]
"""Worst truth, all correct, worst adherence."""


def planted_space(name: str = "default") -> Space:
    return read_space(name, load_config(None), check_names)


def metrics_of(worst_truth: float, all_correct: float, adherence: float) -> dict[str, float]:
    """All of `METRICS`."""
    rest = (worst_truth + 0.05, 0.1, all_correct + 0.02, adherence + 0.01)
    return dict(zip(METRICS, (worst_truth, all_correct, adherence, *rest), strict=True))


def planted_records(
    root: Path, objectives: list[tuple[float, float, float]] | None = None
) -> list[TrialRecord]:
    """A finished trial per row, in folders with their configuration; they end 10 s apart."""
    space = planted_space()
    rows = OBJECTIVES if objectives is None else objectives
    points = spread_points(space.dimensions, len(rows), seed=3)
    records = []
    for i, (point, row) in enumerate(zip(points, rows, strict=True)):
        folder = root / "trials" / f"t{i:04}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(to_yaml(space.resolved(point)))
        records.append(
            TrialRecord(
                trial_id=folder.name,
                params=space.settings(point),
                overrides=tuple(space.overrides(point)),
                status="done",
                metrics=metrics_of(*row),
                step=60,
                wall_s={"start": 2.0, "targets": 1.0, "clone": 5.0, "evaluate": 1.0, "total": 10.0},
                finished_at=STARTED_AT + 10.0 * (i + 1),
                folder=str(folder),
            )
        )
    return records


def failed_record(root: Path) -> TrialRecord:
    return TrialRecord(
        trial_id="broken",
        params={"targets.penalty_weight": 0.1},
        overrides=("targets.penalty_weight=0.1",),
        status="failed",
        wall_s={"start": 1.0, "total": 2.0},
        finished_at=STARTED_AT + 5.0,
        error="WorkerError: group amber <did> not answer",
        folder=str(root / "trials" / "broken"),
    )


def planted_plan() -> SweepPlan:
    return SweepPlan(num_trials=len(OBJECTIVES))


def planted_summary(root: Path, **changes: Any) -> SweepSummary:
    """A tested sweep of `planted_records` and one failed trial; test figures are a bit lower."""
    records = [*planted_records(root), failed_record(root)]
    behaviour = metrics_of(0.30, 0.10, 0.94)

    def evaluate(folder: Path) -> dict[str, dict[str, float]]:
        found = next(r for r in records if r.folder == str(folder))
        lower = {name: value - 0.03 for name, value in found.metrics.items()}
        return {"aligned": lower, "behaviour": metrics_of(0.28, 0.09, 0.93)}

    choices, before = chosen_and_tested(records, behaviour, root, evaluate)
    summary = SweepSummary(
        root=root,
        plan=planted_plan(),
        space=planted_space(),
        records=tuple(records),
        choices=choices,
        overhead=overhead(records, {"prepare_s": 20.0, "trials_s": 40.0}, 2),
        behaviour=behaviour,
        behaviour_test=before,
    )
    return replace(summary, **changes)
