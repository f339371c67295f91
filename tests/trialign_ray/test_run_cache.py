"""Shared stages: keyed by what decides them, published whole, computed once."""

import errno
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
from trialign_ray.run_cache import BEHAVIOUR, CRITIC, LOG, Stage, named_files, share, try_lock
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


@pytest.mark.parametrize(
    "override",
    [
        "model.chat_template={path}",
        "preferences=[{{kind: classifier, log: '{path}'}}]",
        "preferences=[{{kind: reward_model, model: m, chat_template: '{path}'}}]",
    ],
)
def test_every_file_that_is_named_counts_by_its_content(tmp_path, override):
    path = tmp_path / "given.txt"
    path.write_text("a")
    config = small_config(override.format(path=path))
    before = named_files(config)
    assert list(before) == [str(path)]
    path.write_text("b")
    assert named_files(config) != before


def test_local_files_of_named_sources_count_too(tmp_path):
    path = tmp_path / "mmlu" / "astronomy_test.csv"
    path.parent.mkdir()
    path.write_text("a")
    config = small_config("world.questions=mmlu", f"world.data_dir={tmp_path}")
    assert list(named_files(config)) == [str(path)]


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


def made_and_killed(cache: Path, run: RunDirectory, *overrides: str) -> None:
    """The run made its outputs and ended before it could publish them."""

    def make() -> None:
        write_toy(run, "done")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        share(cache, STAGE, small_config(*overrides), run, make, 30.0)


def test_a_run_that_was_killed_before_publishing_publishes_when_it_goes_on(tmp_path):
    run = toy_run(tmp_path / "a")
    made_and_killed(tmp_path / "cache", run)
    assert share(tmp_path / "cache", STAGE, small_config(), run, lambda: None, 30.0)
    assert shared_text(tmp_path / "cache", tmp_path / "b", "second") == "done"


@pytest.mark.parametrize("known", [True, False])
def test_outputs_of_another_or_an_unknown_key_are_never_published(tmp_path, known):
    run, cache = toy_run(tmp_path / "a"), tmp_path / "cache"
    if known:
        made_and_killed(cache, run, "collect.turns=3")
    else:
        write_toy(run, "done")
    found = []

    def make() -> None:
        found.extend(path for path in run.root.rglob("*.txt"))
        write_toy(run, "new")

    assert share(cache, STAGE, small_config(), run, make, 30.0)
    assert found == []
    assert shared_text(cache, tmp_path / "b", "second") == "new"


def test_a_run_whose_files_changed_takes_what_belongs_to_the_new_ones(tmp_path):
    cache = tmp_path / "cache"
    assert shared_text(cache, tmp_path / "a", "first") == "first"
    run = toy_run(tmp_path / "b")
    made_and_killed(cache, run, "collect.turns=3")
    assert not share(cache, STAGE, small_config(), run, lambda: None, 30.0)
    assert (run.root / "dataset" / "log.txt").read_text() == "first"


def test_a_file_system_without_locks_is_not_waited_for(tmp_path, monkeypatch, caplog):
    def unknown(file, operation) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unknown)
    monkeypatch.setattr("time.sleep", lambda s: pytest.fail("waited") if s < 0.5 else None)
    assert shared_text(tmp_path / "cache", tmp_path / "a", "first") == "first"
    assert "cannot be locked" in caplog.text
    caplog.clear()
    assert shared_text(tmp_path / "cache", tmp_path / "b", "second") == "first"
    assert caplog.text == ""  # what is there is taken without a lock


def test_what_another_process_holds_is_not_locked(tmp_path):
    with (tmp_path / "lock").open("a") as first, (tmp_path / "lock").open("a") as second:
        assert try_lock(first) and not try_lock(second)


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
