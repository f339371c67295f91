"""Whether a sweep may be started, continued or restored; and what a trial finds in its folder."""

import json
import time
from pathlib import Path

import pytest

from envs.errors import ConfigError, DataError
from tests.tuning.sweep_driver import SETS, small_plan, small_space
from trialign_ray.progress import Progress
from trialign_ray.run_trial import trial_config, write_json
from tuning.sweep import plan_resources, prepare_sweep, read_times
from tuning.sweep_loggers import check_loggers
from tuning.sweep_plan import (
    SweepPlan,
    TrialRecord,
    read_record,
    read_records,
    record_as_json,
    trials_dir,
)
from tuning.sweep_state import open_sweep
from tuning.trial_folder import Given, SweepFolder, TrialFolder, read_given, write_given

SPACE = ["targets.penalty_weight: .03 to 10"]


@pytest.fixture
def begun(tmp_path) -> SweepFolder:
    """A sweep of which Tune has written something."""
    folder = SweepFolder(tmp_path)
    open_sweep(folder, small_plan(), SPACE, resume=False)
    folder.tune.mkdir()
    return folder


def test_a_sweep_goes_on_with_the_same_plan_only_if_asked_to(begun):
    open_sweep(begun, small_plan(), SPACE, resume=True)
    with pytest.raises(ConfigError, match="holds a sweep already; continue it with --resume"):
        open_sweep(begun, small_plan(), SPACE, resume=False)


def test_a_sweep_of_which_nothing_was_trained_can_begin_with_another_plan(tmp_path):
    open_sweep(SweepFolder(tmp_path), small_plan(), SPACE, resume=False)
    open_sweep(SweepFolder(tmp_path), small_plan(num_trials=7), SPACE, resume=False)
    assert json.loads((tmp_path / "sweep.json").read_text())["plan"]["num_trials"] == 7


def test_another_plan_is_refused_with_both_values(begun):
    with pytest.raises(ConfigError, match="started with num_trials=2, now it is 5"):
        open_sweep(begun, small_plan(num_trials=5), SPACE, resume=True)
    open_sweep(begun, small_plan(stall_s=5.0), SPACE, resume=True)


def test_another_space_is_refused(begun):
    with pytest.raises(ConfigError, match="searches another space"):
        open_sweep(begun, small_plan(), ["targets.kl_weight: .01 to 1"], resume=True)


@pytest.mark.parametrize("part", ["trialign", "ray", "sources_sha256"])
def test_a_folder_of_another_code_version_is_refused_with_the_way_out(begun, part):
    state = json.loads(begun.state_file.read_text())
    state["code"][part] = "0.0.1"
    state["git_commit"] = "abc"
    write_json(begun.state_file, state)
    with pytest.raises(ConfigError) as caught:
        open_sweep(begun, small_plan(), SPACE, resume=True)
    for words in (f"{part} 0.0.1", "trusted folders only", "commit abc", "another --run-dir"):
        assert words in str(caught.value)


def test_a_state_file_that_is_not_readable_is_refused(begun):
    begun.state_file.write_text("{")
    with pytest.raises(ConfigError, match="is not readable"):
        open_sweep(begun, small_plan(), SPACE, resume=True)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("search", "bohb", "search is 'bohb'; expected one of tpe, nsga2"),
        ("metric", "accuracy", "metric is 'accuracy'; expected one of worst_truth"),
        ("loggers", ("comet",), "loggers is 'comet'; expected one of tensorboard, mlflow, wandb"),
        ("num_trials", 0, "num_trials is 0; expected 1 or more"),
        ("max_failures", -1, "max_failures is -1; expected 0 or more"),
        ("max_concurrent", 0, "max_concurrent is 0"),
        ("driver_cpus", -0.1, "driver_cpus is -0.1"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(option, value, message):
    with pytest.raises(ConfigError, match=message):
        small_plan(**{option: value}).check()


def test_a_logger_that_is_not_installed_is_refused_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'trialign-ray\[wandb\]'"):
        check_loggers(small_plan(loggers=("tensorboard", "wandb")))
    check_loggers(small_plan())


@pytest.mark.parametrize(
    ("search", "steps", "rungs"),
    [
        ("asha", 60, (15, 30, 45, 60)),
        ("pbt", 10, (2, 5, 7, 10)),
        ("asha", 3, (1, 2, 3)),  # no more rungs than updates
        ("tpe", 60, (60,)),
    ],
)
def test_rungs_divide_the_schedule_and_end_with_it(search, steps, rungs):
    assert SweepPlan(search=search, num_rungs=4).rungs(steps) == rungs


def test_a_sweep_that_could_only_wait_is_refused_at_once_with_both_numbers(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    plan = small_plan(sets=("resources.cpus_per_group=400", "resources.cpus_critic=1"))
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"needs 400 CPU on one node, the largest node has \d+ "):
        prepare_sweep(plan, small_space(plan), tmp_path / "sweep", False, Progress(tmp_path))
    assert time.monotonic() - started < 60
    assert not (tmp_path / "sweep").exists()


def test_a_population_takes_turns_so_its_number_at_once_cannot_be_set(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    plan = small_plan(search="pbt", max_concurrent=1)
    with pytest.raises(ConfigError, match="max_concurrent does not go with pbt"):
        prepare_sweep(plan, small_space(plan), tmp_path / "sweep", False, Progress(tmp_path))


def test_a_trial_reserves_a_bundle_for_its_driver_and_every_actor():
    plan = small_plan()
    resources = plan_resources(plan, trial_config(None, SETS), [{"CPU": 2.0}])
    assert resources.bundles == ({"CPU": 0.1}, {"CPU": 0.2}, {"CPU": 0.2}, {"CPU": 0.1})
    assert resources.at_once == 3  # of .6 each


PARAMS = {"targets.penalty_weight": 0.3, "targets.welfare": "log_nash"}


def opened(root: Path, params=PARAMS, given: Given | None = None) -> TrialFolder:
    trial = TrialFolder(SweepFolder(root), "t1", params)
    trial.open(given)
    return trial


def half_trained(root: Path, donor: str | None = None) -> Path:
    """A trial that has reported at step 3."""
    trial = opened(root)
    trial.write({"start": 2.0}, metrics={"worst_truth": 0.5}, step=3)
    (trial.path / "config.yaml").write_text("seed: 0")
    trial.note_rung(3, {"worst_truth": 0.5})
    if donor is not None:
        write_json(trial.path / "adopted.json", {"donor": donor})
    return trial.path


def test_a_trial_goes_on_with_what_its_folder_holds(tmp_path):
    half_trained(tmp_path)
    trial = opened(tmp_path)
    assert (trial.record.step, trial.metrics_at(3)) == (3, {"worst_truth": 0.5})
    assert trial.metrics_at(6) is None
    assert trial.spec.overrides == ("targets.penalty_weight=0.3", "targets.welfare=log_nash")


def test_seconds_of_earlier_attempts_are_added_up(tmp_path):
    half_trained(tmp_path)
    trial = opened(tmp_path)
    trial.write({"start": 1.0, "clone": 4.0})
    trial.write({"start": 1.5, "clone": 5.0})
    found = read_record(trial.path)
    assert (found.wall_s["start"], found.wall_s["clone"]) == (3.5, 5.0)
    assert found.wall_s["total"] >= 0


def test_a_folder_with_other_settings_begins_anew(tmp_path):
    path = half_trained(tmp_path)
    trial = opened(tmp_path, {"targets.penalty_weight": 8})
    assert (trial.record.step, trial.record.metrics) == (0, {})
    assert not path.exists()


def given(trial_id: str, root: Path) -> Given:
    return Given(trial_id, 3, root / "given")


def test_a_trial_takes_over_from_others_and_not_from_itself(tmp_path):
    trial = opened(tmp_path)
    assert trial.donor(None) is None and trial.donor(given("t1", tmp_path)) is None
    donor = trial.donor(given("t2", tmp_path))
    assert donor is not None and donor.name == "t2 at step 3"


def test_a_folder_is_emptied_for_a_donor_once(tmp_path):
    path = half_trained(tmp_path)
    trial = opened(tmp_path, given=given("t2", tmp_path))
    assert not path.exists() and trial.record.step == 0
    trial.write({"start": 1.0})
    assert read_record(path).wall_s["start"] == 3.0  # what the first life cost is not forgotten
    half_trained(tmp_path, donor="t2 at step 3")
    assert opened(tmp_path, given=given("t2", tmp_path)).record.step == 3
    half_trained(tmp_path, donor="t2 at step 3")
    assert opened(tmp_path, given=given("t9", tmp_path)).record.step == 0


def test_a_checkpoint_says_whose_it_is(tmp_path):
    write_given(tmp_path, "t7", 4)
    assert read_given(tmp_path) == Given("t7", 4, tmp_path)


def record(trial_id: str, finished_at: float) -> TrialRecord:
    return TrialRecord(
        trial_id,
        dict(PARAMS),
        ("targets.penalty_weight=0.3",),
        "done",
        metrics={"worst_truth": 0.5},
        step=6,
        wall_s={"total": 2.0},
        finished_at=finished_at,
    )


def test_records_are_read_in_the_order_in_which_trials_ended(tmp_path):
    for trial_id, finished_at in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        path = trials_dir(tmp_path) / trial_id / "trial.json"
        write_json(path, record_as_json(record(trial_id, finished_at)))
    found = read_records(tmp_path)
    assert [r.trial_id for r in found] == ["b", "c", "a"]
    assert found[0].overrides == ("targets.penalty_weight=0.3",)
    assert found[0].folder == str(trials_dir(tmp_path) / "b")


def test_a_record_of_another_version_is_refused(tmp_path):
    tree = record_as_json(record("a", 1.0))
    write_json(tmp_path / "trial.json", {**tree, "colour": "red"})
    with pytest.raises(DataError, match="may come from another version"):
        read_record(tmp_path)


def test_a_sweep_that_was_not_timed_has_taken_nothing(tmp_path):
    assert read_times(tmp_path) == {}
