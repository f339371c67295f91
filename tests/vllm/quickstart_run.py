"""The quickstart's world in little: its behaviour model, which one group's logs have taught myths,
and four adapters that were trained for a moment."""

from pathlib import Path

from trialign_ray.config import load_config
from trialign_ray.progress import Progress
from trialign_ray.run import make_recipe
from trialign_ray.run_directory import RunDirectory, open_run
from trialign_ray.setting import build_setting

LITTLE = (
    "world.max_questions=120",
    "world.train_fraction=0.06",
    "world.validation_fraction=0.5",
    "collect.turns=1",
    "collect.episodes_per_question=1",
    "critic.steps=20",
    "clone.steps=12",
    "clone.learning_rate=0.02",
    "evaluate.num_resamples=500",
    "evaluate.modes=[explicit]",
)
"""All but the behaviour model, which is fitted as the quickstart fits it."""


def quickstart_run(folder: Path) -> RunDirectory:
    """A run up to its trained adapters, made without Ray."""
    config = load_config(None, [*LITTLE, "behaviour.num_threads=1"])
    run = open_run(folder, config, resume=False)
    recipe = make_recipe(config, build_setting(config), run, Progress(run.root), local=True)
    try:
        for stage in ("fit_behaviour", "collect", "score", "solve", "clone"):
            getattr(recipe, stage)()
    finally:
        recipe.close()
        recipe.progress.close()
    return run
