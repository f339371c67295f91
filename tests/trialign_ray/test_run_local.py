"""The whole way without Ray: what every stage leaves behind, and that resume repeats nothing."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.trialign_ray.runs import adapter_hashes, make_recipe, run_all, small_config
from trialign_ray.checks import check_adapters, check_log
from trialign_ray.dataset import read_dataset
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.reference_scores import read_scores
from trialign_ray.run_directory import existing_run, open_run
from trialign_ray.setting import build_setting


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local") / "run"
    recipe = make_recipe(folder, small_config(), local=True)
    return recipe.run_dir, run_all(recipe)


def test_every_stage_leaves_its_result(finished):
    run, _ = finished
    for path in (
        run.config_file,
        run.manifest_file,
        run.log_file,
        run.scores_file,
        run.solution_file,
        run.training_file,
        run.metrics_file,
        run.evaluation_file,
        run.root / "report.html",
        run.root / "report.md",
    ):
        assert path.stat().st_size > 0, path
    for group in ("amber", "birch", "cedar", "delta"):
        names = {p.name for p in run.adapter_dir(group).iterdir()}
        assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= names
    assert list((run.root / "tensorboard").iterdir())


def test_evaluation_keeps_its_contract(finished):
    _, evaluation = finished
    for name in ("facts_base", "behaviour", "aligned"):
        model = evaluation["models"][name]
        assert set(model["truth"]["by_group"]) == {"amber", "birch", "cedar", "delta"}
        assert {"worst", "mean", "gap", "gap_null", "ci"} <= set(model["truth"])
        assert {"all_correct", "all_agree", "agree_and_wrong", "truth_given_known", "jsd"} <= set(
            model["consistency"]
        )
        for mode in ("explicit", "implicit"):
            assert {"by_group", "worst"} <= set(model["adherence"][mode])


def test_the_log_holds_train_questions_alone_and_hides_what_is_hidden(finished):
    run, _ = finished
    config = existing_run(run.root)[1]
    rows = read_dataset(run.log_file)
    split = {q.id: q.split for q in build_setting(config).questions}
    assert {split[r["question_id"]] for r in rows} == {"train"}
    facts = {r["question_id"]: r["gold_visible"] for r in rows if r["kind"] == "truth"}
    assert sum(facts.values()) == round(0.3 * len(facts))
    assert {r["turn"] for r in rows} == {0, 1}


def test_test_questions_appear_nowhere_in_training(finished):
    run, evaluation = finished
    held_out = set(evaluation["models"]["aligned"]["per_question"]["question_ids"])
    trained = {r["question_id"] for r in read_dataset(run.log_file)}
    for path in (run.root / "targets").glob("*.parquet"):
        trained |= set(pq.read_table(path).column("question_id").to_pylist())
    assert held_out and not held_out & trained


def test_targets_are_distributions(finished):
    run, _ = finished
    for row in pq.read_table(run.rows_file("amber")).to_pylist():
        assert sum(row["target"]) == pytest.approx(1.0) and min(row["target"]) > 0
        assert len(row["target"]) == len(row["candidate_text"]) == len(row["reference_logprob"])


def test_the_same_seed_gives_the_same_adapters_and_another_seed_others(finished, tmp_path):
    run, evaluation = finished
    again = make_recipe(tmp_path / "again", small_config(), local=True)
    assert run_all(again) == evaluation
    assert adapter_hashes(again.run_dir) == adapter_hashes(run)
    other = make_recipe(tmp_path / "other", small_config("seed=1"), local=True)
    run_all(other)
    assert not set(adapter_hashes(other.run_dir).values()) & set(adapter_hashes(run).values())


def test_a_finished_run_is_not_run_again(finished):
    run, evaluation = finished
    before = {p: p.stat().st_mtime_ns for p in run.root.rglob("*.safetensors")}
    again = make_recipe(run.root, small_config(), local=True, resume=True)
    assert run_all(again) == evaluation
    assert before == {p: p.stat().st_mtime_ns for p in run.root.rglob("*.safetensors")}


def test_training_goes_on_from_a_damaged_newest_checkpoint(finished, tmp_path):
    run, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(run.root, copy)
    damaged = sorted((copy / "checkpoints" / "amber").glob("step-*"))[-1] / "state.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    shutil.rmtree(copy / "adapters")
    (copy / "evaluation.json").unlink()
    recipe = make_recipe(copy, small_config(), local=True, resume=True)
    run_all(recipe)
    assert adapter_hashes(recipe.run_dir) == adapter_hashes(run)
    resumed = json.loads(recipe.run_dir.training_file.read_text())["resumed_at"]
    assert resumed["amber"] == 25 and resumed["birch"] == 30


def test_reference_scores_of_another_log_are_refused(finished, tmp_path):
    run, _ = finished
    copy = tmp_path / "log.parquet"
    table = pq.read_table(run.log_file)
    metadata = {**table.schema.metadata, b"trialign.content_sha256": b"0" * 64}
    pq.write_table(table.replace_schema_metadata(metadata), copy)
    with pytest.raises(DataError, match="delete the scores"):
        read_scores(run.scores_file, copy)


def test_an_adapter_of_another_base_is_refused(finished):
    run, _ = finished
    setting = build_setting(existing_run(run.root)[1])
    with pytest.raises(ConfigError, match="use the base it was trained on"):
        check_adapters(run, setting, "0" * 64)


def test_a_run_directory_is_never_overwritten(finished):
    run, _ = finished
    with pytest.raises(ConfigError, match="--resume"):
        open_run(run.root, small_config(), resume=False)
    with pytest.raises(ConfigError, match="seed=0, now it is 5"):
        open_run(run.root, small_config("seed=5"), resume=True)


def test_the_model_card_is_filled(finished):
    run, evaluation = finished
    card = (run.adapter_dir("amber") / "README.md").read_text()
    value = evaluation["models"]["aligned"]["truth"]["by_group"]["amber"]
    assert f"{value:.3f}" in card and "Limits" in card


def test_adapter_weights_moved(finished):
    run, _ = finished
    tensors = load_file(run.adapter_dir("amber") / "adapter_model.safetensors")
    assert max(float(t.abs().max()) for n, t in tensors.items() if "lora_B" in n) > 0
    assert all(torch.isfinite(t).all() for t in tensors.values())


def test_evaluation_scores_what_was_exported_and_nothing_else(finished, tmp_path):
    run, evaluation = finished
    copy = tmp_path / "copy"
    shutil.copytree(run.root, copy)
    shutil.rmtree(copy / "checkpoints")
    (copy / "evaluation.json").unlink()
    recipe = make_recipe(copy, small_config(), local=True, resume=True)
    assert run_all(recipe) == evaluation
    (copy / "evaluation.json").unlink()
    weights = copy / "adapters" / "amber" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match="the training exported"):
        run_all(make_recipe(copy, small_config(), local=True, resume=True))


@pytest.mark.parametrize(
    "overrides",
    [
        ("collect.label_fraction=0", "collect.turns=1"),
        ("collect.label_fraction=1", "evaluate.modes=[implicit]"),
        ("collect.max_new_tokens=4",),  # most utterances are cut: questions without candidates
        ("targets.players=groups", "targets.welfare=power_mean", "targets.borrow_peers=false"),
    ],
    ids=str,
)
def test_the_edges_of_the_settings_run(tmp_path, overrides):
    config = small_config("clone.steps=1", *overrides)
    assert run_all(make_recipe(tmp_path / "run", config, local=True))


def test_own_questions_and_groups_run(tmp_path):
    words = ["red", "green", "blue"]
    rows = [
        {
            "id": f"q{i}",
            "text": f"What is the sum of {i} and 0?",
            "gold": [str(i)],
            "verifier": "numeric",
        }
        for i in range(40)
    ]
    rows += [
        {
            "id": f"c{i}",
            "text": "What is the color of snow?",
            "gold": ["red"],
            "choices": words,
            "verifier": "closed_vocabulary",
        }
        for i in range(20)
    ]
    rows.append({"id": "t", "text": "What is the best color?", "kind": "subjective"})
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pack = tmp_path / "pack.yaml"
    pack.write_text("groups:\n- {name: x, profile: Reader}\n- {name: y, profile: likes}\n")
    config = small_config(
        f"world.questions={path}",
        f"world.groups={pack}",
        "world.num_groups=null",
        "clone.steps=1",
        "world.train_fraction=0.4",
        "world.validation_fraction=0.1",
    )
    assert run_all(make_recipe(tmp_path / "run", config, local=True))


def test_a_log_of_other_groups_is_refused_before_training(finished, tmp_path):
    run, _ = finished
    other = small_config("world.num_groups=3")
    with pytest.raises(DataError, match="is of groups"):
        check_log(run, build_setting(other), None)
    with pytest.raises(DataError, match="behaviour model"):
        check_log(run, build_setting(small_config()), "0" * 64)


@pytest.mark.parametrize("num_groups", [1, 12])
def test_any_number_of_groups_runs(tmp_path, num_groups):
    config = small_config(f"world.num_groups={num_groups}", "clone.steps=1")
    evaluation = run_all(make_recipe(tmp_path / "run", config, local=True))
    assert len(evaluation["models"]["aligned"]["truth"]["by_group"]) == num_groups
