"""`trialign tune` refuses what cannot be run before anything is started."""

import pytest
from typer.testing import CliRunner

from trialign_ray.checks import check_names
from trialign_ray.cli import app
from trialign_ray.errors import ConfigError, TrialignError
from tuning.search_space import RANGES
from tuning.sweep_launch import arithmetic, make_request
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


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrialignError, match="not empty"):
        invoked("--run-dir", str(tmp_path))
    with pytest.raises(TrialignError, match="holds no sweep"):
        invoked("--run-dir", str(tmp_path), "--resume")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_the_arithmetic_names_trials_bundles_and_points():
    plan = SweepPlan(num_trials=9, search="grid")
    lines = "\n".join(arithmetic(make_request(plan, "penalties", 0, check_names), NODES))
    assert "trials: 9, at most 2 at once" in lines and "6 bundles" in lines
    screened = make_request(SweepPlan(num_trials=3), None, 30, check_names)
    assert "points swept on the log first: 30" in arithmetic(screened, NODES)


def test_the_help_names_the_danger_of_a_folder_that_is_not_trusted():
    assert "trusted folders only" in " ".join(invoked("--help").split())
