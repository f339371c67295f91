"""Small runs for tests: the whole way in seconds; their figures mean nothing."""

import json
from pathlib import Path

from trialign_ray.config import Config, load_config
from trialign_ray.config_preferences import JudgeSection
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.progress import Progress
from trialign_ray.run import Recipe
from trialign_ray.run import make_recipe as recipe_of
from trialign_ray.run_directory import RunDirectory, open_run
from trialign_ray.setting import build_setting

SMALL = (
    f"behaviour.model={SHIPPED_BASE}",
    "collect.episodes_per_question=1",
    "clone.steps=30",
    "clone.batch_size=4",
    "clone.checkpoint_every=5",
    "critic.steps=20",
    "evaluate.num_resamples=100",
    "world.train_fraction=0.06",
    "world.validation_fraction=0.88",
    "resources.timeout_s=120",
)

UNREACHABLE_JUDGE = JudgeSection(
    kind="judge", url="http://127.0.0.1:9/v1", model="j", max_retries=0
)
"""A scorer that cannot be built: nobody listens at port 9 (discard) of this machine."""


def small_config(*overrides: str) -> Config:
    """Facts-only base as the behaviour model, few questions, few updates."""
    return load_config(None, [*SMALL, *overrides])


def make_recipe(folder: Path, config: Config, local: bool, resume: bool = False) -> Recipe:
    run = open_run(folder, config, resume)
    return recipe_of(config, build_setting(config), run, Progress(run.root), local)


def run_all(recipe: Recipe) -> dict:
    """Every stage; returns the evaluation."""
    try:
        recipe.fit_behaviour()
        recipe.collect()
        recipe.score()
        recipe.solve()
        recipe.clone()
        evaluation = recipe.evaluate()
        recipe.report()
        return evaluation
    finally:
        recipe.close()
        recipe.progress.close()


def adapter_hashes(run: RunDirectory) -> dict[str, str]:
    return json.loads(run.training_file.read_text())["adapter_sha256"]
