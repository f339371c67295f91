"""Runs that end in the middle of training, as a kill would end them, and go on."""

import shutil
from pathlib import Path
from typing import Any

from tests.trialign_ray.runs import make_recipe
from trialign_ray.actors.workers import Workers
from trialign_ray.config import Config
from trialign_ray.run import Recipe
from trialign_ray.run_directory import RunDirectory


class Stopped(Exception):
    """The driver's end."""


class StoppingWorkers:
    """Workers that end after so many single calls; nothing more is written."""

    def __init__(self, workers: Workers, num_calls: int):
        self.groups, self._workers, self._left = workers.groups, workers, num_calls

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Stopped

    def on_groups(self, verb: str, arguments: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
        results = {}
        for group, args in arguments.items():
            self._count()
            results |= self._workers.on_groups(verb, {group: args})
        return results

    def on_critic(self, verb: str, *arguments: Any) -> Any:
        self._count()
        return self._workers.on_critic(verb, *arguments)

    def close(self) -> None:
        self._workers.close()


def train(
    folder: Path, config: Config, resume: bool = False, num_calls: int | None = None
) -> Recipe:
    """From where the folder is to exported adapters, without Ray. Raises: Stopped."""
    recipe = make_recipe(folder, config, local=True, resume=resume)
    try:
        for stage in (recipe.fit_behaviour, recipe.collect, recipe.score, recipe.solve):
            stage()
        if num_calls is not None:
            recipe.assembly._workers = StoppingWorkers(recipe.workers, num_calls)
        recipe.clone()
    finally:
        recipe.close()
        recipe.progress.close()
    return recipe


def train_in_lives(folder: Path, config: Config, num_calls: int) -> int:
    """Resumes until the adapters are exported, so many single calls a life; number of lives."""
    for life in range(1, 30):
        try:
            train(folder, config, resume=True, num_calls=num_calls)
            return life
        except Stopped:
            continue
    raise AssertionError("training makes no progress from life to life")


def untrained_copy(run: RunDirectory, folder: Path) -> Path:
    """The run as it is before training."""
    trained = shutil.ignore_patterns("checkpoints", "adapters", "round-*", "evaluation.json")
    shutil.copytree(run.root, folder, ignore=trained)
    return folder
