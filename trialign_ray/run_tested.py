"""After a sweep: a chosen trial on the test split, and the model that trials are to repair."""

from pathlib import Path

from trialign_ray.evaluate import answer_metrics, answer_questions
from trialign_ray.progress import Progress
from trialign_ray.run import Recipe, make_recipe
from trialign_ray.run_directory import existing_run
from trialign_ray.run_trial import sweep_metrics
from trialign_ray.setting import build_setting

ByModel = dict[str, dict[str, float]]
"""Figures of a sweep by model: `behaviour` and `aligned`."""
BEFORE, AFTER = "behaviour", "aligned"


def on_test(folder: Path, progress: Progress, local: bool = False) -> ByModel:
    """A finished trial's adapters and the behaviour model on the test split. The trial becomes a
    whole run: with evaluation.json, model cards and report.

    Args: local: without Ray, in this process. Raises: TrialignError.
    """
    recipe = _recipe(folder, progress, local)
    try:
        evaluation = recipe.evaluate()
        recipe.report()
    finally:
        recipe.close()
    return {model: sweep_metrics(evaluation["models"][model]) for model in (BEFORE, AFTER)}


def behaviour_on_validation(
    folder: Path, progress: Progress, local: bool = False
) -> dict[str, float]:
    """The behaviour model of a run on the questions by which trials are judged. Raises:
    TrialignError."""
    recipe = _recipe(folder, progress, local)
    try:
        protocol, modes = recipe.protocol("validation"), recipe.config.evaluate.modes
        answers = {m: answer_questions(protocol, recipe.workers, BEFORE, m) for m in modes}
        return sweep_metrics(answer_metrics(protocol, answers, jsd=None))
    finally:
        recipe.close()


def _recipe(folder: Path, progress: Progress, local: bool) -> Recipe:
    """Groups' actors generate, as in the trials whose figures stand beside these."""
    run, config = existing_run(folder)
    setting = build_setting(config, run.root)
    return make_recipe(config, setting, run, progress, local, own_engine=False)
