"""Shared stages: keyed by what decides them, published whole, computed once."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.trialign_ray.runs import make_recipe, small_config
from trialign_ray.actors.critic_learner import CriticLearner
from trialign_ray.config_sections import CriticConfig
from trialign_ray.run_cache import BEHAVIOUR, CRITIC, LOG, Stage, share
from trialign_ray.run_directory import RunDirectory
from trialign_ray.truth_heads import TruthEstimate
from trialign_ray.truth_heads.saved import SavedEstimate

STAGE = Stage("toy", ("collect",), ("dataset", "critic/scores.txt"))


def keys(*overrides: str) -> tuple[str, str, str]:
    config = small_config(*overrides)
    return BEHAVIOUR.key(config), LOG.key(config), CRITIC.key(config)


def same_keys(*overrides: str) -> tuple[bool, bool, bool]:
    """Of behaviour model, log and critic: which ones another run would share."""
    behaviour, log, critic = (a == b for a, b in zip(keys(), keys(*overrides), strict=True))
    return behaviour, log, critic


@pytest.mark.parametrize(
    ("override", "shared"),
    [
        ("targets.penalty_weight=3", (True, True, True)),
        ("clone.learning_rate=0.001", (True, True, True)),
        ("resources.cpus_per_group=0.5", (True, True, True)),
        ("critic.pessimism=2", (True, True, True)),  # taken off after the fit
        ("critic.discount=0.9", (True, True, True)),
        ("critic.truth_head=majority", (True, True, False)),
        ("critic.steps=21", (True, True, False)),
        ("collect.turns=3", (True, False, False)),
        ("collect.label_fraction=0.5", (True, False, False)),
        ("seed=1", (False, False, False)),
        ("world.corruption.noise=0.2", (False, False, False)),
    ],
)
def test_a_run_shares_what_its_settings_do_not_decide(override, shared):
    assert same_keys(override) == shared


def test_the_content_of_named_files_decides_too(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text("{}")
    before = keys(f"world.questions={path}")
    path.write_text("{ }")
    assert keys(f"world.questions={path}") != before


def toy_run(root: Path) -> RunDirectory:
    root.mkdir(parents=True)
    return RunDirectory(root)


def write_toy(run: RunDirectory, text: str = "x") -> None:
    for name in ("dataset/log.txt", "critic/scores.txt"):
        path = run.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def shared_text(cache: Path, root: Path, text: str, log: Path | None = None) -> str:
    """What the run at `root` has in the end; `log` notes that it was computed."""

    def make() -> None:
        if log is not None:
            with log.open("a") as file:
                file.write(text)
            time.sleep(0.5)
        write_toy(run, text)

    run = toy_run(root)
    share(cache, STAGE, small_config(), run, make, timeout_s=30.0)
    return (root / "dataset" / "log.txt").read_text()


def test_the_second_run_takes_what_the_first_has_made(tmp_path):
    assert shared_text(tmp_path / "cache", tmp_path / "a", "first") == "first"
    assert shared_text(tmp_path / "cache", tmp_path / "b", "second") == "first"
    assert (tmp_path / "b" / "critic" / "scores.txt").is_symlink()


def test_two_at_once_compute_it_once(tmp_path):
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=shared_text, args=(tmp_path / "cache", tmp_path / name, name, log))
        for name in ("a", "b")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(log.read_text()) == 1
    assert (tmp_path / "a/dataset/log.txt").read_text() == log.read_text()
    assert (tmp_path / "b/dataset/log.txt").read_text() == log.read_text()


def test_who_was_killed_while_computing_leaves_nothing_that_is_believed(tmp_path):
    def killed() -> None:
        run = toy_run(tmp_path / "a")

        def make() -> None:
            (run.root / "dataset").mkdir()
            os.kill(os.getpid(), signal.SIGKILL)

        share(tmp_path / "cache", STAGE, small_config(), run, make, timeout_s=30.0)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert shared_text(tmp_path / "cache", tmp_path / "b", "second") == "second"
    run = RunDirectory(tmp_path / "a")  # and goes on with what the other made
    assert not share(tmp_path / "cache", STAGE, small_config(), run, lambda: None, 30.0)
    assert (run.root / "dataset" / "log.txt").read_text() == "second"


def test_a_run_that_was_killed_before_publishing_publishes_when_it_goes_on(tmp_path):
    run = toy_run(tmp_path / "a")
    write_toy(run, "done")
    assert share(tmp_path / "cache", STAGE, small_config(), run, lambda: None, 30.0)
    assert shared_text(tmp_path / "cache", tmp_path / "b", "second") == "done"


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A small run with log and reference scores."""
    folder = tmp_path_factory.mktemp("critic") / "run"
    recipe = make_recipe(folder, small_config("world.num_groups=2"), local=True)
    recipe.collect()
    recipe.score()
    recipe.close()
    return recipe


def test_a_critic_that_comes_back_reads_its_estimate_and_solves_the_same(scored):
    spec = scored.assembly.critic_spec()
    learner = CriticLearner(spec)
    learner.fit()
    first = learner.solve()
    assert (Path(spec.critic_dir) / "estimate.safetensors").is_file()
    assert CriticLearner(spec).solve() == first


def test_an_estimate_of_another_log_or_other_settings_is_not_read(scored, tmp_path):
    log, critic = scored.run_dir.log_file, CriticConfig()
    estimate = TruthEstimate(torch.rand(3, 2), torch.rand(3, 2), 1.25, 7)
    saved = SavedEstimate.of(tmp_path, log, critic, seed=0)
    assert saved.read() is None
    saved.write(estimate)
    found = SavedEstimate.of(tmp_path, log, CriticConfig(pessimism=2.0), seed=0).read()
    assert found is not None
    assert torch.equal(found.mean_XZ, estimate.mean_XZ)
    assert torch.equal(found.std_XZ, estimate.std_XZ)
    assert (found.temperature, found.num_labels) == (1.25, 7)
    assert SavedEstimate.of(tmp_path, log, critic, seed=1).read() is None
    assert SavedEstimate.of(tmp_path, log, CriticConfig(folds=3), seed=0).read() is None


def test_a_damaged_estimate_is_fitted_again(scored, tmp_path):
    saved = SavedEstimate.of(tmp_path, scored.run_dir.log_file, CriticConfig(), seed=0)
    saved.write(TruthEstimate(torch.rand(3, 2), torch.rand(3, 2), 1.0, 1))
    saved.path.write_bytes(saved.path.read_bytes()[:40])
    assert saved.read() is None
