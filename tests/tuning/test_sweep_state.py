"""Whether a sweep may be started, continued or restored."""

import json
import time
from pathlib import Path

import pytest

from envs.errors import ConfigError
from tests.tuning.sweep_driver import SETS, small_plan, small_space
from trialign_ray.progress import Progress
from trialign_ray.run_trial import trial_config, write_json
from tuning.sweep import longest_silence_s, plan_resources, prepare_sweep
from tuning.sweep_loggers import check_loggers
from tuning.sweep_plan import (
    SweepPlan,
)
from tuning.sweep_state import open_sweep
from tuning.trial_folder import SweepFolder

SPACE = ["targets.penalty_weight: .03 to 10"]


def begin(
    folder: SweepFolder, plan: SweepPlan, space: list[str] = SPACE, *, resume: bool = False
) -> None:
    config = trial_config(Path(plan.config_path) if plan.config_path else None, plan.sets)
    open_sweep(folder, plan, config, space, resume)


@pytest.fixture
def begun(tmp_path) -> SweepFolder:
    """A sweep of which Tune has written something."""
    folder = SweepFolder(tmp_path)
    begin(folder, small_plan())
    folder.tune.mkdir()
    return folder


def test_a_sweep_goes_on_with_the_same_plan_only_if_asked_to(begun):
    begin(begun, small_plan(), resume=True)
    with pytest.raises(ConfigError, match="holds a sweep already; continue it with --resume"):
        begin(begun, small_plan(), resume=False)


def test_a_sweep_of_which_nothing_was_trained_can_begin_with_another_plan(tmp_path):
    begin(SweepFolder(tmp_path), small_plan(), resume=False)
    begin(SweepFolder(tmp_path), small_plan(num_trials=7), resume=False)
    assert json.loads((tmp_path / "sweep.json").read_text())["plan"]["num_trials"] == 7


def test_another_plan_is_refused_with_both_values(begun):
    with pytest.raises(ConfigError, match="started with num_trials=2, now it is 5"):
        begin(begun, small_plan(num_trials=5), resume=True)
    begin(begun, small_plan(stall_s=5.0), resume=True)


SCREENED = ("prescreen.json", "behaviour.json")


@pytest.mark.parametrize(
    ("changes", "space"),
    [({"seed": 4}, SPACE), ({"num_trials": 3}, SPACE), ({"prescreen": 9}, SPACE), ({}, ["other"])],
)
def test_what_was_found_before_trials_is_forgotten_with_other_settings(tmp_path, changes, space):
    """As after an interrupt between the prescreen and the first trial."""
    folder = SweepFolder(tmp_path)
    begin(folder, small_plan())
    for name in SCREENED:
        (tmp_path / name).write_text("{}")
    begin(folder, small_plan(), resume=True)
    assert all((tmp_path / name).is_file() for name in SCREENED)
    begin(folder, small_plan(**changes), space, resume=True)
    assert not any((tmp_path / name).exists() for name in SCREENED)


def test_another_number_of_prescreened_points_is_refused(begun):
    with pytest.raises(ConfigError, match="started with prescreen=0, now it is 30"):
        begin(begun, small_plan(prescreen=30), resume=True)


def test_a_configuration_file_that_says_something_else_now_is_refused(tmp_path):
    path, folder = tmp_path / "c.yaml", SweepFolder(tmp_path / "sweep")
    plan = small_plan(config_path=str(path))
    path.write_text("targets: {kl_weight: 0.1}\nresources: {max_restarts: 3}")
    begin(folder, plan)
    folder.tune.mkdir()
    path.write_text("targets: {kl_weight: 0.10}\nresources: {max_restarts: 3}  # the same")
    begin(folder, plan, resume=True)
    for text, message in (
        ("targets: {kl_weight: 0.2}\nresources: {max_restarts: 3}", "targets.kl_weight=0.1, now"),
        ("targets: {kl_weight: 0.1}\nresources: {max_restarts: 1}", "resources.max_restarts=3"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            begin(folder, plan, resume=True)


def test_a_named_file_that_holds_something_else_now_is_refused(tmp_path):
    path, folder = tmp_path / "questions.jsonl", SweepFolder(tmp_path / "sweep")
    plan = small_plan(sets=(f"world.questions={path}",))
    path.write_text("{}")
    begin(folder, plan)
    folder.tune.mkdir()
    begin(folder, plan, resume=True)
    for change in (lambda: path.write_text("{ }"), path.unlink):
        change()
        with pytest.raises(ConfigError, match=r"questions\.jsonl holds is not what it held"):
            begin(folder, plan, resume=True)


def test_another_space_is_refused(begun):
    with pytest.raises(ConfigError, match="searches another space"):
        begin(begun, small_plan(), ["targets.kl_weight: .01 to 1"], resume=True)


@pytest.mark.parametrize("part", ["trialign", "ray", "sources_sha256"])
def test_a_folder_of_another_code_version_is_refused_with_the_way_out(begun, part):
    state = json.loads(begun.state_file.read_text())
    state["code"][part] = "0.0.1"
    state["git_commit"] = "abc"
    write_json(begun.state_file, state)
    with pytest.raises(ConfigError) as caught:
        begin(begun, small_plan(), resume=True)
    for words in (f"{part} 0.0.1", "trusted folders only", "commit abc", "another --run-dir"):
        assert words in str(caught.value)


def test_a_state_file_that_is_not_readable_is_refused(begun):
    begun.state_file.write_text("{")
    with pytest.raises(ConfigError, match="is not readable"):
        begin(begun, small_plan(), resume=True)


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


def test_nobody_is_silent_for_too_long_while_one_call_may_still_take_its_time():
    slow = trial_config(None, ("resources.timeout_s=3000", "evaluate.modes=[explicit,implicit]"))
    assert longest_silence_s(small_plan(stall_s=3600), slow) == 3 * 3000
    assert longest_silence_s(small_plan(stall_s=20_000), slow) == 20_000
