"""From collection to evaluation under Ray, utterances from vLLM in an actor or by Ray Data."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.trialign_ray.runs import make_recipe, small_config
from trialign_ray.actors.engine_hosts import RayVLLM
from trialign_ray.actors.engine_workers import EngineWorkers
from trialign_ray.actors.ray_data_generation import RayDataHost
from trialign_ray.dataset import read_dataset
from trialign_ray.reference_scores import read_scores
from trialign_ray.run import Recipe
from trialign_ray.run_directory import RunDirectory

pytestmark = [pytest.mark.vllm, pytest.mark.ray, pytest.mark.timeout(900)]
SMALL = (
    "world.num_groups=2",
    "world.max_questions=60",
    "world.train_fraction=0.3",
    "world.validation_fraction=0.3",
    "collect.turns=1",
    "clone.steps=4",
    "clone.checkpoint_every=4",
    "evaluate.modes=[explicit]",
    "engine.cache_gib=0.1",
    "engine.concurrency=1",
    "resources.timeout_s=400",
)


def run_under_ray(folder: Path, kind: str, host: type) -> tuple[RunDirectory, dict[str, Any]]:
    """A run from its log to its evaluation, both spoken by an engine of that kind and host."""
    recipe = make_recipe(folder, small_config(*SMALL, f"engine.kind={kind}"), local=False)
    try:
        assert isinstance(recipe.workers, EngineWorkers)
        assert isinstance(recipe.workers._host, host)
        evaluation = stages(recipe, "collect", "score", "solve", "clone", "evaluate")
    finally:
        recipe.close()
        recipe.progress.close()
    return recipe.run_dir, evaluation


def stages(recipe: Recipe, *names: str) -> dict[str, Any]:
    """What the last of them returns."""
    return [getattr(recipe, name)() for name in names][-1]


def evaluated_by_transformers(run: RunDirectory, folder: Path) -> dict[str, Any]:
    """The same adapters, evaluated without Ray and without vLLM."""
    recipe = make_recipe(folder, small_config(*SMALL), local=True)
    for name in ("dataset", "critic", "targets", "adapters"):
        shutil.copytree(run.root / name, folder / name, dirs_exist_ok=True)
    try:
        return stages(recipe, "evaluate")
    finally:
        recipe.close()
        recipe.progress.close()


def require_sound_log(run: RunDirectory) -> None:
    """What the engine noted of its own utterances is what the groups' agents, by transformers, find
    them to be worth under the same model."""
    rows, scores = read_dataset(run.log_file), read_scores(run.scores_file, run.log_file)
    compared = 0
    for row in rows:
        for i, group in enumerate(row["group_ids"]):
            score = scores.get((row["question_id"], group, row["action_text"][i]))
            if score is not None and not row["truncated"][i]:
                assert row["behaviour_logprob"][i] == pytest.approx(score.logprob, abs=1e-3)
                compared += 1
    assert compared > len(rows), "most utterances of the two groups"


def answers(evaluation: dict[str, Any], model: str) -> dict[str, list[str]]:
    return evaluation["models"][model]["per_question"]["answer"]


@pytest.mark.parametrize(("kind", "host"), [("vllm", RayVLLM), ("ray_data", RayDataHost)])
def test_a_run_under_ray_ends_with_the_answers_of_transformers(ray_local, tmp_path, kind, host):
    run, found = run_under_ray(tmp_path / kind, kind, host)
    require_sound_log(run)
    expected = evaluated_by_transformers(run, tmp_path / "transformers")
    for model in ("facts_base", "behaviour", "aligned"):
        assert answers(found, model) == answers(expected, model)
