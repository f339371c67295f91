"""The same on real Ray actors: equal to the run without Ray, and a kill loses nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.trialign_ray.runs import SMALL, adapter_hashes, make_recipe, run_all, small_config
from trialign_ray.actors.placement import require_resources, total
from trialign_ray.actors.workers import RayWorkers
from trialign_ray.config_sections import ResourcesConfig
from trialign_ray.errors import ConfigError, DataError, WorkerError
from trialign_ray.run_directory import RunDirectory

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def without_ray(tmp_path_factory):
    recipe = make_recipe(tmp_path_factory.mktemp("local") / "run", small_config(), local=True)
    evaluation = run_all(recipe)
    return adapter_hashes(recipe.run_dir), evaluation


def until_clone(recipe):
    recipe.collect()
    recipe.score()
    recipe.solve()


def kill_after_a_checkpoint(run: RunDirectory, group: str, pid: int) -> threading.Thread:
    """Kills -9 as soon as the group has written a checkpoint."""

    def wait_and_kill():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if list(run.checkpoint_dir(group).glob("step-*/manifest.json")):
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.002)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def test_actors_give_what_one_process_gives_and_are_gone_afterwards(
    ray_local, tmp_path, without_ray
):
    recipe = make_recipe(tmp_path / "run", small_config(), local=False)
    evaluation = run_all(recipe)
    assert adapter_hashes(recipe.run_dir) == without_ray[0]
    assert evaluation == without_ray[1]
    time.sleep(1)
    with pytest.raises(ValueError, match="Failed to look up actor"):
        ray_local.get_actor("trialign/run/group-amber")


@pytest.fixture(scope="module")
def started(ray_local, tmp_path_factory):
    """A recipe whose actors are up; nothing has been run."""
    recipe = make_recipe(tmp_path_factory.mktemp("ray") / "up", small_config(), local=False)
    yield recipe
    recipe.close()


def test_actors_are_named_after_run_and_group(ray_local, started):
    assert isinstance(started.workers, RayWorkers)
    assert set(started.workers.actor_ids()) == {"amber", "birch", "cedar", "delta", "critic"}
    for name in ("group-amber", "critic"):
        assert ray_local.get_actor(f"trialign/up/{name}")


def test_an_error_in_an_actor_arrives_as_it_was_raised(started, tmp_path):
    with pytest.raises(DataError, match="call clone first"):
        started.workers.on_groups("export", {"amber": (str(tmp_path / "x"),)})


def test_a_hung_actor_is_named_and_does_not_hang_the_run(started, monkeypatch):
    pid = started.workers.on_groups("state", {"cedar": ()})["cedar"]["pid"]
    monkeypatch.setattr(started.workers, "_resources", ResourcesConfig(timeout_s=2.0))
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(WorkerError, match=r"group cedar .* did not answer in time"):
            started.workers.on_groups("state", {"cedar": ()})
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_killed_group_actor_comes_back_and_loses_nothing(ray_local, tmp_path, without_ray):
    recipe = make_recipe(tmp_path / "killed", small_config(), local=False)
    try:
        until_clone(recipe)
        pid = recipe.workers.on_groups("state", {"birch": ()})["birch"]["pid"]
        thread = kill_after_a_checkpoint(recipe.run_dir, "birch", pid)
        recipe.clone()
        thread.join()
        after = recipe.workers.on_groups("state", {"birch": ()})["birch"]
    finally:
        recipe.close()
    assert after["pid"] != pid
    resumed = json.loads(recipe.run_dir.training_file.read_text())["resumed_at"]
    assert 0 < resumed["birch"] < 30 and resumed["amber"] == 0
    assert adapter_hashes(recipe.run_dir) == without_ray[0]


def test_a_killed_critic_learner_comes_back(ray_local, tmp_path, without_ray):
    recipe = make_recipe(tmp_path / "critic", small_config(), local=False)
    try:
        recipe.collect()
        recipe.score()
        import ray

        handle = ray.get_actor("trialign/critic/critic")
        ray.kill(handle, no_restart=False)
        recipe.solve()
        recipe.clone()
    finally:
        recipe.close()
    assert adapter_hashes(recipe.run_dir) == without_ray[0]


@pytest.mark.slow
def test_a_killed_driver_resumes_to_the_same_adapters(tmp_path, without_ray):
    run = RunDirectory(tmp_path / "driver")
    command = [sys.executable, "-m", "trialign_ray", "train", "--run-dir", str(run.root)]
    command += [part for override in SMALL for part in ("--set", override)]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(run.root.glob("checkpoints/*/step-*/manifest.json")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    first.kill()
    first.wait()
    assert not run.evaluation_file.exists()
    second = subprocess.run(
        [*command, "--resume"], env=environment, capture_output=True, text=True, timeout=240
    )
    assert second.returncode == 0, second.stderr
    assert adapter_hashes(run) == without_ray[0]


@pytest.mark.slow
def test_an_interrupt_after_ray_train_ends_the_run_and_says_how_to_go_on(tmp_path):
    """Ray Train replaces the interrupt handler; the run after it must still be stoppable."""
    run = RunDirectory(tmp_path / "interrupted")
    overrides = [o for o in SMALL if not o.startswith(("behaviour.model", "clone.steps"))]
    overrides += ["behaviour.epochs=0.05", "clone.steps=5000"]
    command = [sys.executable, "-m", "trialign_ray", "train", "--run-dir", str(run.root)]
    command += [part for override in overrides for part in ("--set", override)]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    process = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job is started with interrupts ignored; the run must not inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 200
    while not list(run.root.glob("checkpoints/*/step-*/manifest.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        _, error = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"--resume --run-dir {run.root}" in error


def test_more_than_the_cluster_has_is_refused_with_both_numbers():
    resources = ResourcesConfig(cpus_per_group=1.0)
    assert total(4, resources) == {"CPU": 4.25}
    with pytest.raises(ConfigError, match=r"need 4.25 CPU, there are 2"):
        require_resources(4, resources, {"CPU": 2.0})
