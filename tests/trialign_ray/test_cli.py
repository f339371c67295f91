"""The command line: bad input ends with one message, exit code 2, and nothing written."""

import json
import subprocess
import sys
import time

import pytest
import yaml

from trialign_ray import cli
from trialign_ray.run_directory import RunDirectory


def call(monkeypatch, capsys, *arguments):
    """Runs a command in this process; returns exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["trialign", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def trialign(monkeypatch, capsys):
    return lambda *arguments: call(monkeypatch, capsys, *arguments)


@pytest.fixture(autouse=True)
def no_ray_may_start(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("Ray was started before the input was checked")

    monkeypatch.setattr("trialign_ray.run.start_ray", refuse)


def test_help_is_quick_and_module_equals_command():
    start = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", "trialign_ray", "--help"], capture_output=True, text=True
    )
    elapsed_s = time.monotonic() - start
    assert result.returncode == 0 and "quickstart" in result.stdout
    assert elapsed_s < 5, "a generous bound against importing torch; it takes about 0.3 s"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("targets.penality_weight=1", "did you mean 'targets.penalty_weight'"),
        ("collect.label_fraction=2", "collect.label_fraction is 2"),
        ("algorithm=magic", "algorithm is 'magic'; expected one of awr"),
        ("targets.welfare=nash", "expected one of cvar"),
        ("targets.penalty=jsd", "expected one of excess_disagreement"),
        ("resources.cpus_per_group=100", "need 400.25 CPU"),
        ("behaviour.num_workers=1000", "needs 500 CPUs"),
        ("behaviour.model=/no/such/folder", "there is no model folder"),
        ("world.groups=nobody", "neither a shipped pack"),
        ("world.questions=none.jsonl", "there is no file"),
    ],
)
def test_a_wrong_setting_ends_with_one_message_and_writes_nothing(
    trialign, tmp_path, override, message
):
    run_dir = tmp_path / "run"
    code, _, error = trialign("quickstart", "--run-dir", run_dir, "--set", override)
    assert code == 2 and message in error and error.count("error:") == 1
    assert "Traceback" not in error and not run_dir.exists()


@pytest.mark.parametrize("name", ["'../x'", "a/b", "''"])
def test_a_group_name_that_would_leave_the_folder_is_refused(trialign, tmp_path, name):
    pack = tmp_path / "pack.yaml"
    pack.write_text(f"groups:\n- {{name: {name}, profile: x}}\n")
    code, _, error = trialign(
        "train",
        "--run-dir",
        tmp_path / "run",
        "--set",
        f"world.groups={pack}",
        "--set",
        "world.num_groups=null",
    )
    assert code == 2 and "groups.0.name" in error and not (tmp_path / "run").exists()


def test_more_groups_than_the_pack_has_is_refused(trialign, tmp_path):
    pack = tmp_path / "pack.yaml"
    pack.write_text("groups:\n- {name: a, profile: x}\n")
    code, _, error = trialign(
        *("train", "--run-dir", tmp_path / "run", "--set", f"world.groups={pack}"),
        *("--set", "world.num_groups=2"),
    )
    assert code == 2 and "has 1 groups" in error


def test_words_that_the_tiny_model_cannot_read_are_named(trialign, tmp_path):
    pack = tmp_path / "pack.yaml"
    pack.write_text("groups:\n- {name: a, profile: Likes quokkas.}\n")
    code, _, error = trialign(
        "train",
        "--run-dir",
        tmp_path / "run",
        "--set",
        f"world.groups={pack}",
        "--set",
        "world.num_groups=1",
    )
    assert code == 2 and "quokkas" in error


def test_a_run_directory_that_exists_is_left_alone(trialign, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    code, _, error = trialign("quickstart", "--run-dir", tmp_path)
    assert code == 2 and "--resume" in error
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]
    code, _, error = trialign("quickstart", "--run-dir", tmp_path, "--resume")
    assert code == 2 and "no run to resume" in error


def test_dry_run_shows_configuration_and_arithmetic_and_writes_nothing(trialign, tmp_path):
    code, out, _ = trialign("quickstart", "--run-dir", tmp_path / "run", "--dry-run", "--seed", 3)
    assert code == 0 and not (tmp_path / "run").exists()
    assert yaml.safe_load(out)["seed"] == 3
    assert "# actors: 5" in out and "# CPUs reserved: 1.25" in out


def test_dry_run_refuses_what_this_machine_cannot_hold(trialign, tmp_path):
    code, _, error = trialign("quickstart", "--dry-run", "--set", "resources.cpus_per_group=99")
    assert code == 2 and "396.25 CPU" in error


def test_data_check_names_rows_and_exits_with_2(trialign, tmp_path):
    code, _, error = trialign("data", "check", tmp_path / "none.parquet")
    assert code == 2 and "there is no file" in error


def test_config_show_and_schema(trialign):
    code, out, _ = trialign("config", "show", "--set", "targets.penalty_weight=0.5")
    assert code == 0 and yaml.safe_load(out)["targets"]["penalty_weight"] == 0.5
    code, out, _ = trialign("config", "schema")
    assert code == 0 and "TargetsConfig" in json.loads(out)["$defs"]


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_commands_on_a_run_need_a_run(trialign, tmp_path, command):
    code, _, error = trialign(command, tmp_path)
    assert code == 2 and "is no run directory" in error


def test_no_path_leaves_the_run_directory(tmp_path):
    with pytest.raises(cli.TrialignError, match="outside the run directory"):
        RunDirectory(tmp_path).adapter_dir("../../x")
