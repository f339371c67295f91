"""A small sweep as a process of its own, so that tests can kill it:
`python -m tests.tuning.sweep_driver ROOT OPTIONS_AS_JSON`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.trialign_ray.runs import SMALL
from trialign_ray.progress import Progress
from trialign_ray.run_trial import trial_config
from tuning.search_dimensions import parse_dimension
from tuning.search_space import Space
from tuning.searchers import ListedPoints, make_searching
from tuning.sweep import run_sweep
from tuning.sweep_plan import Searching, SweepPlan, TrialRecord, trials_dir
from tuning.sweep_watch import living_actors

SETS = (
    *SMALL,
    *("world.num_groups=2", "world.validation_fraction=0.04", "evaluate.modes=[explicit]"),
    *("clone.steps=6", "clone.checkpoint_every=1"),
)
GOOD: dict[str, Any] = {"targets.penalty_weight": 1.0, "clone.learning_rate": 0.005}
RUINOUS_RATE = 1.0
RUINOUS = {**GOOD, "clone.learning_rate": RUINOUS_RATE}
"""After two updates nothing is left of the language."""


def small_plan(**options: Any) -> SweepPlan:
    options["sets"] = (*SETS, *options.get("sets", ()))
    return SweepPlan(**{"search": "random", "num_trials": 2, "num_rungs": 2, **options})


def small_space(plan: SweepPlan, highest_rate: float = 0.02) -> Space:
    ranges = {
        "targets.penalty_weight": {"loguniform": [0.03, 10]},
        "clone.learning_rate": {"loguniform": [0.001, highest_rate]},
    }
    dimensions = tuple(parse_dimension(key, given, "own") for key, given in ranges.items())
    return Space("own", trial_config(None, plan.sets), dimensions)


def listed(*settings: dict[str, Any]) -> Searching:
    """Exactly these trials."""
    return Searching(ListedPoints(settings), None, {}, len(settings))


def sweep(
    root: Path, plan: SweepPlan, resume: bool = False, searching: Searching | None = None
) -> list[TrialRecord]:
    root.mkdir(parents=True, exist_ok=True)
    space, progress = small_space(plan), Progress(root)
    try:
        return run_sweep(
            plan, space, searching or make_searching(plan, space), root, resume, progress
        )
    finally:
        progress.close()


def main(root: Path, resume: bool = False, num_cpus: int = 2, **options: Any) -> None:
    """Leaves `records.json`, and of every end `living.json`: actors that should be gone."""
    import ray

    ray.init(num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, address="local")
    try:
        records = sweep(root, small_plan(**options), resume)
        (root / "records.json").write_text(json.dumps([asdict(r) for r in records]))
    finally:
        ids = [path.name for path in trials_dir(root).iterdir()]
        (root / "living.json").write_text(json.dumps(living_actors(ids)))
        ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), **json.loads(sys.argv[2]))
