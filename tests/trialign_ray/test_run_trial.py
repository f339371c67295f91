"""A trial of a sweep as a run, without Ray: it shares, trains by rungs, and takes over."""

import json
import shutil
from pathlib import Path

import pytest

from tests.trialign_ray.runs import adapter_hashes, make_recipe, small_config
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.progress import Progress
from trialign_ray.report import write_report
from trialign_ray.run_directory import RunDirectory
from trialign_ray.run_tested import behaviour_on_validation
from trialign_ray.run_trial import (
    Donor,
    TrialRun,
    TrialSpec,
    check_sweep,
    prepare_base,
    sweep_metrics,
    trial_config,
)

SETS = (
    *("world.num_groups=2", "evaluate.modes=[explicit]", "clone.steps=6"),
    *("clone.checkpoint_every=4", "world.validation_fraction=0.04"),
)
WEIGHT = "targets.penalty_weight=0.3"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A prepared base, its cache beside it."""
    root = tmp_path_factory.mktemp("sweep")
    config = small_config(*SETS)
    prepare_base(config, root / "base", root / "cache", Progress(root), local=True)
    return root


def open_trial(root: Path, name: str, *overrides: str) -> TrialRun:
    spec = TrialSpec(
        str(root / "base"), str(root / "cache"), str(root / "trials" / name), overrides, local=True
    )
    return TrialRun(spec, {})


def hashes(root: Path, name: str) -> dict[str, str]:
    return adapter_hashes(RunDirectory(root / "trials" / name))


def train_out(trial: TrialRun, *rungs: int) -> list[dict[str, float]]:
    """Reports of all rungs and of the end; the trial is finished."""
    metrics = []
    for step in (*rungs, trial.steps):
        trial.train_to(step)
        metrics.append(trial.evaluate())
    trial.finish()
    return metrics


@pytest.fixture(scope="module")
def in_one_go(root) -> dict[str, float]:
    trial = open_trial(root, "once", WEIGHT)
    trial.prepare()
    return train_out(trial)[-1]


def test_a_trial_gives_what_a_run_of_its_own_gives(root, in_one_go, tmp_path):
    recipe = make_recipe(tmp_path / "run", small_config(*SETS, WEIGHT), local=True)
    for stage in (recipe.collect, recipe.score, recipe.solve, recipe.clone):
        stage()
    recipe.close()
    assert adapter_hashes(recipe.run_dir) == hashes(root, "once")
    assert set(in_one_go) >= {"worst_truth", "all_correct", "worst_adherence"}
    assert all(0 <= value <= 1 for value in in_one_go.values())


def test_a_trial_shares_log_scores_and_critic(root, in_one_go):
    folder = root / "trials" / "once"
    for name in ("dataset", "critic/reference_scores.parquet", "critic/estimate.safetensors"):
        assert (folder / name).is_symlink() and (folder / name).exists(), name
    assert not (folder / "targets").is_symlink()
    assert not (folder / "checkpoints").exists()


def test_a_trial_that_is_judged_at_rungs_trains_the_same_adapters(root, in_one_go):
    trial = open_trial(root, "rungs", WEIGHT)
    trial.prepare()
    reports = train_out(trial, 1, 3)
    assert hashes(root, "rungs") == hashes(root, "once")
    assert reports[-1] == in_one_go


def test_a_trial_that_ended_between_rungs_goes_on_from_its_rung(root, in_one_go):
    trial = open_trial(root, "ended", WEIGHT)
    trial.prepare()
    trial.train_to(3)
    trial.close()
    again = open_trial(root, "ended", WEIGHT)
    again.prepare()
    train_out(again)
    assert hashes(root, "ended") == hashes(root, "once")
    record = json.loads((root / "trials" / "ended" / "adapters" / "training.json").read_text())
    assert set(record["resumed_at"].values()) == {3}


@pytest.fixture(scope="module")
def donor(root, tmp_path_factory) -> Donor:
    """The checkpoints of a trial after 3 of 6 updates."""
    folder = tmp_path_factory.mktemp("donor")
    trial = open_trial(root, "donor", WEIGHT)
    trial.prepare()
    trial.train_to(3)
    assert not trial.copy_checkpoints(folder / "not-there", 2)
    assert trial.copy_checkpoints(folder, 3)
    trial.close()
    return Donor("donor at step 3", folder)


def taken_over(root: Path, donor: Donor, name: str, *overrides: str) -> dict[str, str]:
    trial = open_trial(root, name, *overrides)
    trial.prepare(donor)
    train_out(trial)
    record = json.loads((root / "trials" / name / "adapters" / "training.json").read_text())
    assert set(record["resumed_at"].values()) == {3}
    return hashes(root, name)


def test_adapter_and_optimizer_of_a_donor_are_taken_over(root, donor, in_one_go):
    """Under the donor's own settings its adapters come out, bit for bit: with other moments, or
    another step, they would not."""
    assert taken_over(root, donor, "same", WEIGHT) == hashes(root, "once")


def test_who_takes_over_trains_on_under_its_own_settings(root, donor, in_one_go):
    other = "targets.penalty_weight=8"
    changed = taken_over(root, donor, "changed", other, "clone.learning_rate=0.02")
    fresh = open_trial(root, "fresh", other, "clone.learning_rate=0.02")
    fresh.prepare()
    train_out(fresh)
    assert changed["amber"] not in (hashes(root, "once")["amber"], hashes(root, "fresh")["amber"])


def test_a_donor_is_taken_over_once_and_then_the_trial_goes_on_itself(root, donor, in_one_go):
    trial = open_trial(root, "killed", WEIGHT)
    trial.prepare(donor)
    trial.train_to(4)
    trial.close()
    again = open_trial(root, "killed", WEIGHT)
    again.prepare(donor)
    train_out(again)
    record = json.loads((root / "trials" / "killed" / "adapters" / "training.json").read_text())
    assert set(record["resumed_at"].values()) == {4}
    assert hashes(root, "killed") == hashes(root, "once")


def test_a_donor_without_checkpoints_is_an_error(root, tmp_path):
    trial = open_trial(root, "orphan", WEIGHT)
    with pytest.raises(DataError, match="holds no checkpoint of group amber"):
        trial.prepare(Donor("nobody at step 3", tmp_path))
    trial.close()


def test_a_trial_is_an_ordinary_run_that_can_be_tested_and_reported(root, in_one_go):
    config = small_config(*SETS, WEIGHT)
    recipe = make_recipe(root / "trials" / "once", config, local=True, resume=True)
    try:
        recipe.off_policy()
        evaluation = recipe.evaluate()
    finally:
        recipe.close()
    assert evaluation["split"] == "test"
    write_report(recipe.run_dir)
    assert (recipe.run_dir.root / "report.html").is_file()


def test_the_behaviour_model_is_asked_as_trials_are_whatever_engine_made_the_log(root, tmp_path):
    expected = behaviour_on_validation(root / "base", Progress(tmp_path), local=True)
    shutil.copytree(root / "base", tmp_path / "base")
    path = tmp_path / "base" / "config.yaml"
    text = path.read_text()
    assert "kind: transformers" in text
    path.write_text(text.replace("kind: transformers", "kind: vllm"))
    found = behaviour_on_validation(tmp_path / "base", Progress(tmp_path), local=True)
    assert found == expected


def test_shares_of_a_trial_stand_back_for_what_the_configuration_says():
    assert trial_config(None, ()).resources.cpus_per_group == 0.2
    given = trial_config(None, ["resources.cpus_per_group=0.25"]).resources
    assert (given.cpus_per_group, given.cpus_critic) == (0.25, 0.1)


def test_a_sweep_without_validation_truths_is_refused():
    with pytest.raises(ConfigError, match=r"raise world.validation_fraction \(now 0\)"):
        check_sweep(small_config("world.validation_fraction=0"), by_rungs=False)


def test_adapters_that_groups_share_cannot_be_judged_while_they_train():
    config = small_config("algorithm=pooled_dpo")
    assert check_sweep(config, by_rungs=False) == 4
    with pytest.raises(ConfigError, match="share one adapter"):
        check_sweep(config, by_rungs=True)


@pytest.mark.parametrize("override", ["clone.shared_rank=2", "clone.coordinate_every=3"])
def test_adapters_that_were_trained_beside_something_are_not_taken_over(override):
    config = small_config(override)
    assert check_sweep(config, by_rungs=True) == 4
    with pytest.raises(ConfigError, match="under pbt"):
        check_sweep(config, by_rungs=True, takes_over=True)


def test_groups_without_style_rules_take_no_part_in_adherence():
    truth = {"worst": 0.5, "mean": 0.6, "gap": 0.2}
    consistency = {"all_correct": 0.4, "all_agree": 0.7}

    def adherence_of(**by_group: float | None) -> tuple[float, float]:
        metrics = {
            "truth": truth,
            "consistency": consistency,
            "adherence": {"explicit": {"by_group": by_group}},
        }
        found = sweep_metrics(metrics)
        return found["worst_adherence"], found["mean_adherence"]

    assert adherence_of(a=0.25, b=0.75) == (0.25, 0.5)
    assert adherence_of(a=0.25, b=None) == (0.25, 0.25)
    assert adherence_of(a=None, b=None) == (1.0, 1.0)
