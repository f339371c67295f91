"""`trialign tune` refuses what cannot be run before anything is started."""

import json
import multiprocessing
import os
import signal

import pytest
from typer.testing import CliRunner

from trialign_ray.checks import check_names
from trialign_ray.cli import app
from trialign_ray.commands.tuning import _require_sweep_folder
from trialign_ray.errors import ConfigError, TrialignError
from trialign_ray.progress import Progress
from tuning.search_space import RANGES
from tuning.sweep_launch import arithmetic, make_request
from tuning.sweep_lock import sole_driver
from tuning.sweep_plan import SweepPlan

NODES = [{"CPU": 2.0}]


def invoked(*arguments: str) -> str:
    """What the command printed; its error raised as it is."""
    result = CliRunner().invoke(app, ["tune", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_dry_run_says_what_would_be_searched_and_why():
    text = invoked("--dry-run", "--num-trials", "5", "--search", "nsga2", "--set", "clone.steps=7")
    assert "# search: nsga2 over 6 dimensions" in text and "trials: 5, at most" in text
    assert "bundles" in text and "  steps: 7" in text
    assert RANGES["critic.pessimism"]["reason"] in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metric", "accuracy"), "metric is 'accuracy'; expected one of worst_truth"),
        (("--search", "bayes"), "search is 'bayes'; expected one of tpe"),
        (("--logger", "tensorboard,neptune"), "loggers is 'neptune'"),
        (("--space", "nowhere.yaml"), "space nowhere.yaml does not exist"),
        (("--search", "grid"), "the grid has 405 points"),
        (("--search", "pbt", "--space", "all"), "pbt cannot search"),
        (("--search", "asha", "--set", "algorithm=pooled_dpo"), "^in algorithm 'pooled_dpo'"),
        (("--prescreen", "4"), "--prescreen 4 sweeps fewer points"),
        (("--prescreen", "40", "--set", "algorithm=sft"), "central problem of algorithm trialign"),
        (
            ("--prescreen", "40", "--search", "grid", "--space", "penalties"),
            "a grid has its own points",
        ),
        (("--set", "targets.welfare=nash"), "targets.welfare is 'nash'"),
        (("--set", "resources.cpus_per_group=1000"), "1000"),
        (("--set", "world.validation_fraction=0"), "validation split"),
    ],
)
def test_what_cannot_be_run_is_refused_with_the_reason(arguments, message, tmp_path):
    root = tmp_path / "sweep"
    for last in ((), ("--dry-run",)):
        with pytest.raises(ConfigError, match=message):
            invoked(*arguments, "--run-dir", str(root), *last)
    assert not root.exists()


@pytest.mark.parametrize("search", ["asha", "pbt"])
def test_no_point_of_the_space_may_be_unfit_for_the_search(tmp_path, search):
    space = tmp_path / "space.yaml"
    space.write_text(
        "algorithm: {choice: [trialign, pooled_dpo]}\ntargets.kl_weight: {uniform: [0.1, 1]}"
    )
    with pytest.raises(ConfigError, match=r"'pooled_dpo' groups share one adapter.*narrow"):
        make_request(SweepPlan(search=search), str(space), check_names)
    make_request(SweepPlan(search="random"), str(space), check_names)


def test_a_logger_that_is_not_installed_is_refused_before_anything_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="logger wandb needs the package"):
        invoked("--logger", "wandb", "--run-dir", str(tmp_path / "sweep"))
    assert not (tmp_path / "sweep").exists()


def test_an_engine_that_trials_do_not_use_is_told(caplog):
    sets = ("engine.kind=server", "engine.url=http://127.0.0.1:9/v1")
    make_request(SweepPlan(sets=sets), None, check_names)
    assert "engine.kind server makes the log alone" in caplog.text


def test_what_a_start_leaves_that_failed_at_once_is_in_nobodys_way(tmp_path):
    Progress(tmp_path).close()
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / ".lock").touch()
    for resume in (False, True):
        _require_sweep_folder(tmp_path, resume)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ConfigError, match="not empty"):
        _require_sweep_folder(tmp_path, False)
    _require_sweep_folder(tmp_path, True)


def test_a_second_driver_is_told_who_runs_the_sweep(tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    with (
        sole_driver(tmp_path),
        pytest.raises(ConfigError, match=rf"run by process {os.getpid()} on .*--resume"),
    ):
        invoked("--run-dir", str(tmp_path), "--resume")
    assert not (tmp_path / "tensorboard").exists()


def test_a_driver_that_was_killed_holds_nobody_off(tmp_path):
    def driver() -> None:
        with sole_driver(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=driver)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == process.pid
    with sole_driver(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrialignError, match="not empty"):
        invoked("--run-dir", str(tmp_path))
    with pytest.raises(TrialignError, match="holds no sweep"):
        invoked("--run-dir", str(tmp_path), "--resume")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_the_arithmetic_names_trials_bundles_and_points():
    plan = SweepPlan(num_trials=9, search="grid")
    lines = "\n".join(arithmetic(make_request(plan, "penalties", check_names), NODES))
    assert "trials: 9, at most 2 at once" in lines and "6 bundles" in lines
    screened = make_request(SweepPlan(num_trials=3, prescreen=30), None, check_names)
    assert "points swept on the log first: 30" in arithmetic(screened, NODES)


def test_the_help_names_the_danger_of_a_folder_that_is_not_trusted():
    assert "trusted folders only" in " ".join(invoked("--help").split())
