"""`trialign frontier RUN`: the trade-off found on the log, before anything is trained.

Everything goes to RUN/frontier: all points (frontier.parquet), what to make of them (frontier.json
and frontier.html), and the points that were trained to see whether promises hold (trained/).
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trialign_ray.run import Progress
from trialign_ray.targets_frontier import Frontier, chosen_to_train, find_frontier
from trialign_ray.targets_prediction import Prediction, read_swept_log
from trialign_ray.targets_sweep import (
    Point,
    Settings,
    one_torch_thread,
    overrides_of,
    sweep,
)
from tuning.frontier_grid import default_grid, setting_name
from tuning.frontier_training import (
    TrainedPoint,
    Trainer,
    correlations,
    train_here,
    train_points,
)


@dataclass(frozen=True)
class FrontierSummary:
    """What was found. log: what the log's own mixture promises; own: the run's setting, None if its
    algorithm solves no central problem, or not to its certificate. rank_correlation: promised with
    realised, by split and objective."""

    folder: Path
    points: list[Point]
    frontier: Frontier
    log: Prediction
    own: Prediction | None
    overrides: list[list[str]]
    sweep_s: float
    trained: list[TrainedPoint]
    rank_correlation: dict[str, dict[str, float | None]]

    @property
    def failed(self) -> list[Point]:
        """Settings without a certified solution."""
        return [p for p in self.points if p.prediction is None]

    @property
    def broken(self) -> list[TrainedPoint]:
        """Points that were to be trained and are not."""
        return [t for t in self.trained if t.realised.failure]

    @property
    def html(self) -> Path:
        return self.folder / "frontier.html"


def run_frontier(
    run: Path,
    train: int = 0,
    settings: int | None = None,
    *,
    progress: Progress,
    grid: Sequence[Settings] | None = None,
    trainer: Trainer = train_here,
    sets: Sequence[str] = (),
) -> FrontierSummary:
    """The frontier of a scored run, written beside it.

    Args:
        train: how many points to train, 0 for none. settings: how many settings to solve; None: the
            default grid's. grid: another grid than the default one.
        trainer: where points are trained, `train_here` or `train_on_ray`. sets: overrides for
            training alone, say of `clone`.
    Raises: ConfigError, DataError, ConvergenceError.
    """
    root = run.expanduser().resolve()
    chosen_grid = default_grid(settings) if grid is None else list(grid)
    with progress.stage("frontier", len(chosen_grid)), one_torch_thread():
        log = read_swept_log(root)
        started = time.monotonic()
        points = sweep(log, chosen_grid, lambda n: progress.display.advance("frontier", n))
        sweep_s = time.monotonic() - started
        log_promise = log.predict(log.reference_GXK)
        own = log.of_the_run()
    frontier = find_frontier(points, log_promise)
    chosen = chosen_to_train(points, frontier, train) if train else []

    def trained_with(point: Point) -> list[str]:
        return [*overrides_of(log.config, point.settings), *sets]

    trained = []
    if chosen:
        trained = train_points(root, points, chosen, trained_with, progress, trainer)
    summary = FrontierSummary(
        folder=root / "frontier",
        points=points,
        frontier=frontier,
        log=log_promise,
        own=own,
        overrides=[overrides_of(log.config, p.settings) for p in points],
        sweep_s=sweep_s,
        trained=trained,
        rank_correlation=correlations(points, trained),
    )
    write_frontier(summary)
    return summary


def write_frontier(summary: FrontierSummary) -> None:
    """frontier.parquet, frontier.json and frontier.html."""
    from tuning.frontier_page import frontier_page

    summary.folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(i, p) for i, p in enumerate(summary.points)]
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = {key: [row.get(key) for row in rows] for key in keys}
    pq.write_table(pa.table(columns), summary.folder / "frontier.parquet", compression="zstd")
    record = json.dumps(frontier_record(summary), indent=2, allow_nan=False)
    (summary.folder / "frontier.json").write_text(record, encoding="utf-8")
    summary.html.write_text(frontier_page(summary), encoding="utf-8")


def frontier_record(summary: FrontierSummary) -> dict[str, Any]:
    """frontier.json: Pareto set, recommendations, and promises beside what training realised."""

    def described(index: int) -> dict[str, Any]:
        point = summary.points[index]
        return {
            "index": index,
            "name": setting_name(point.settings),
            "overrides": summary.overrides[index],
            **_promise(point.promise),
        }

    return {
        "num_settings": len(summary.points),
        "sweep_s": summary.sweep_s,
        "failed": [{"name": setting_name(p.settings), "reason": p.failure} for p in summary.failed],
        "log": _promise(summary.log),
        "own": _promise(summary.own) if summary.own else None,
        "hypervolume": summary.frontier.hypervolume,
        "pareto": [described(i) for i in summary.frontier.pareto],
        "line": list(summary.frontier.line),
        "recommended": [
            {
                "name": r.name,
                "preference": r.preference,
                "point": None if r.index is None else described(r.index),
            }
            for r in summary.frontier.recommended
        ],
        "trained": [
            {
                "index": t.index,
                "name": t.name,
                "overrides": list(t.overrides),
                "promised": _promise(summary.points[t.index].promise),
                "realised": asdict(t.realised),
            }
            for t in summary.trained
        ],
        "rank_correlation": summary.rank_correlation,
    }


def _promise(prediction: Prediction) -> dict[str, Any]:
    worst = {
        "worst_truth": prediction.worst_truth,
        "worst_personalization": prediction.worst_personalization,
    }
    return {**worst, **asdict(prediction)}


def _row(index: int, point: Point) -> dict[str, Any]:
    """One line of frontier.parquet; what a failed point does not have is null."""
    row = {
        "index": index,
        "name": setting_name(point.settings),
        **point.settings,
        "failure": point.failure or None,
        "wall_s": point.wall_s,
        "num_iterations": point.num_iterations,
        "gap": point.gap,
        "welfare_value": point.welfare,
    }
    if point.prediction is not None:
        promise = _promise(point.prediction)
        for objective in ("truth", "personalization"):
            by_group = promise.pop(objective)
            row |= {f"{objective}_{group}": value for group, value in by_group.items()}
        row |= promise
    for objective, by_group in (point.credit or {}).items():
        row |= {f"credit_{objective}_{group}": value for group, value in by_group.items()}
    return row
