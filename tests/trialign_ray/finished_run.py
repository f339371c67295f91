"""One finished run for tests that only look at it: two groups, a common adapter beside theirs."""

import shutil
from pathlib import Path

import pytest

from tests.trialign_ray.small_runs import run_to_report, small_run_config
from trialign_ray.config import Config
from trialign_ray.run_directory import RunDirectory, existing_run

GROUPS = ("amber", "birch")


def finished_run(factory: pytest.TempPathFactory) -> tuple[RunDirectory, Config]:
    """Made once per session. Whoever changes something takes a copy (`copied`)."""
    folder = factory.getbasetemp() / "finished-run"
    if not folder.is_dir():
        settings = ("world.num_groups=2", "clone.shared_rank=4", "clone.learning_rate=0.05")
        config = small_run_config(factory.mktemp("questions"), *settings)
        building = folder.with_name("finished-run.building")
        recipe = run_to_report(building, config)
        recipe.close()
        recipe.progress.close()
        building.rename(folder)
    return existing_run(folder)


def copied(run: RunDirectory, folder: Path) -> RunDirectory:
    """A copy that a test may change."""
    shutil.copytree(run.root, folder)
    return RunDirectory(folder.resolve())
