"""The whole way, from the log to the report, with vLLM in the place of transformers."""

import json

import pytest

from tests.trialign_ray.runs import make_recipe, run_all, small_config
from trialign_ray.actors.engine_workers import EngineWorkers
from trialign_ray.dataset import read_dataset

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_a_run_through_vllm_ends_with_the_answers_of_one_through_transformers(tmp_path):
    """The log is taken over, so that both train the same adapters; only who speaks differs."""
    overrides = ("clone.steps=6", "evaluate.modes=[explicit]", "evaluate.num_resamples=100")
    vllm = ("engine.kind=vllm", "engine.cache_gib=0.1")
    recipe = make_recipe(tmp_path / "vllm", small_config(*overrides, *vllm), local=True)
    assert isinstance(recipe.workers, EngineWorkers)
    found = run_all(recipe)
    log = read_dataset(tmp_path / "vllm" / "dataset" / "log.parquet")
    assert all(logprob < 0 for row in log for logprob in row["behaviour_logprob"])

    other = make_recipe(tmp_path / "transformers", small_config(*overrides), local=True)
    (tmp_path / "transformers" / "dataset").mkdir()
    (tmp_path / "vllm" / "dataset" / "log.parquet").rename(
        tmp_path / "transformers" / "dataset" / "log.parquet"
    )
    expected = run_all(other)
    hashes = [
        json.loads((tmp_path / kind / "adapters" / "training.json").read_text())["adapter_sha256"]
        for kind in ("vllm", "transformers")
    ]
    assert hashes[0] == hashes[1]
    for model in ("facts_base", "behaviour", "aligned"):
        answers = [e["models"][model]["per_question"]["answer"] for e in (found, expected)]
        assert answers[0] == answers[1]
