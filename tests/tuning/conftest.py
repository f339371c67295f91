"""One small scored run, its sweep and its frontier, shared by all tests here."""

from pathlib import Path

import pytest

from tests.trialign_ray.runs import make_recipe, small_config
from trialign_ray.progress import Progress
from trialign_ray.targets_prediction import SweptLog, read_swept_log
from trialign_ray.targets_sweep import Point, sweep
from tuning.frontier import FrontierSummary, run_frontier
from tuning.frontier_grid import default_grid

SMALL = (
    "clone.steps=4",
    "clone.checkpoint_every=4",
    "world.num_groups=2",
    "world.train_fraction=0.25",
    "world.validation_fraction=0.03",
    "evaluate.modes=[explicit]",
    "collect.temperature=2.5",
    "collect.episodes_per_question=2",
)
"""The temperature is high, since a model that says one thing alone leaves nothing to trade."""


def scored_run(folder: Path, *overrides: str) -> Path:
    """A run with log and reference scores, and nothing after."""
    recipe = make_recipe(folder, small_config(*SMALL, *overrides), local=True)
    try:
        recipe.collect()
        recipe.score()
    finally:
        recipe.close()
        recipe.progress.close()
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    return scored_run(tmp_path_factory.mktemp("frontier") / "run")


@pytest.fixture(scope="session")
def log(run) -> SweptLog:
    return read_swept_log(run)


@pytest.fixture(scope="session")
def points(log) -> list[Point]:
    return sweep(log, [s for s in default_grid(200) if s["welfare"] != "maximin"])


@pytest.fixture(scope="session")
def summary(run) -> FrontierSummary:
    """40 settings solved, one of them trained."""
    return run_frontier(run, train=1, settings=40, progress=Progress(run / "frontier"))
