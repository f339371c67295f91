"""Sweeps on real Ray: concurrent trials with actors of their own, and what a kill does to them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from tests.trialign_ray.runs import adapter_hashes
from tests.tuning.sweep_driver import (
    GOOD,
    RUINOUS,
    RUINOUS_RATE,
    listed,
    small_plan,
    small_space,
    sweep,
)
from trialign_ray.run_directory import RunDirectory
from trialign_ray.run_trial import TrialRun, TrialSpec
from tuning.searchers import make_searching
from tuning.sweep_plan import read_records, trials_dir
from tuning.sweep_watch import living_actors

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]
WAIT_S = 600.0


def start(root: Path, **options: Any) -> subprocess.Popen[str]:
    """A sweep on a cluster of two CPUs, in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "tests.tuning.sweep_driver", str(root), json.dumps(options)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job is started with interrupts ignored; the sweep must not be.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it said; it must end well."""
    _, error = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, error[-3000:]
    return error


def wait_for(found: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (result := found()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    return result


def records_of(root: Path) -> list[dict[str, Any]]:
    return json.loads((root / "records.json").read_text())


def hashes_without_ray(root: Path, record: dict[str, Any], folder: Path) -> dict[str, str]:
    """The adapters of the same trial, trained undisturbed in this process."""
    spec = TrialSpec(
        str(root / "base"), str(root / "cache"), str(folder), tuple(record["overrides"]), local=True
    )
    run = TrialRun(spec, {})
    run.prepare()
    run.train_to(run.steps)
    run.finish()
    return adapter_hashes(RunDirectory(folder))


def actor_process(sweep: subprocess.Popen[str], group: str) -> tuple[psutil.Process, str] | None:
    """The process of some trial's actor of that group, once it is up, with the trial's id."""
    for process in psutil.Process(sweep.pid).children(recursive=True):
        try:
            title = process.cmdline()[0]
        except (psutil.Error, IndexError):
            continue
        found = re.fullmatch(rf"ray::trialign/(\w+)/group-{group}(:.*)?", title)
        if found and trials_dir(sweep_root(sweep)).joinpath(found[1]).is_dir():
            return process, found[1]
    return None


def sweep_root(process: subprocess.Popen[str]) -> Path:
    return Path(cast(list[str], process.args)[3])


def checkpoints(root: Path, group: str) -> list[Path]:
    return list(trials_dir(root).glob(f"*/checkpoints/{group}/step-*/manifest.json"))


def test_a_killed_actor_costs_nothing_and_trials_run_side_by_side_on_two_cpus(tmp_path):
    root = tmp_path / "sweep"
    process = start(root, num_trials=3, sets=["clone.steps=60", "world.num_groups=3"])
    actor, trial_id = wait_for(lambda: actor_process(process, "birch"), process)
    folder = trials_dir(root) / trial_id
    wait_for(lambda: list(folder.glob("checkpoints/birch/step-*/manifest.json")), process)
    actor.send_signal(signal.SIGKILL)
    finish(process)
    records = records_of(root)
    assert [r["status"] for r in records] == ["done"] * 3
    assert len({r["trial_id"] for r in records}) == len({tuple(r["overrides"]) for r in records})
    (hit,) = [r for r in records if r["trial_id"] == trial_id]
    training = json.loads((trials_dir(root) / trial_id / "adapters/training.json").read_text())
    assert training["resumed_at"]["birch"] > 0 == training["resumed_at"]["amber"]
    expected = hashes_without_ray(root, hit, tmp_path / "undisturbed")
    assert adapter_hashes(RunDirectory(trials_dir(root) / trial_id)) == expected
    spans = [(r["finished_at"] - r["wall_s"]["total"], r["finished_at"]) for r in records]
    assert max(s for s, _ in spans[:2]) < min(e for _, e in spans[:2])  # side by side
    assert json.loads((root / "living.json").read_text()) == []
    logs = trials_dir(root).glob("*/dataset")
    assert len({path.resolve() for path in logs}) == 1


def test_a_killed_driver_is_resumed_and_no_trial_counts_twice(tmp_path):
    root = tmp_path / "sweep"
    options = {"num_trials": 4, "search": "tpe"}
    process = start(root, **options)

    def one_done_and_one_training() -> bool:
        done = [r for r in read_records(root) if r.status == "done"]
        return bool(done) and bool(checkpoints(root, "amber"))

    wait_for(one_done_and_one_training, process)
    started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    done = {r.trial_id: r.finished_at for r in read_records(root) if r.status == "done"}
    psutil.wait_procs(started, timeout=60)
    finish(start(root, resume=True, **options))
    records = records_of(root)
    assert [r["status"] for r in records] == ["done"] * 4
    assert len({r["trial_id"] for r in records}) == 4
    assert {r["trial_id"] for r in records} == {p.name for p in trials_dir(root).iterdir()}
    kept = {r["trial_id"]: r["finished_at"] for r in records if r["trial_id"] in done}
    assert kept == done  # what was done was not done again
    last = max(records, key=lambda r: r["finished_at"])
    expected = hashes_without_ray(root, last, tmp_path / "undisturbed")
    assert adapter_hashes(RunDirectory(Path(last["folder"]))) == expected
    assert json.loads((root / "living.json").read_text()) == []


def test_an_interrupt_ends_in_order_and_the_sweep_goes_on(tmp_path):
    root = tmp_path / "sweep"
    process = start(root)
    wait_for(lambda: checkpoints(root, "amber"), process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=WAIT_S)
    assert process.returncode != 0 and "KeyboardInterrupt" in error
    assert json.loads((root / "living.json").read_text()) == []
    assert not (root / "records.json").exists()
    finish(start(root, resume=True))
    assert [r["status"] for r in records_of(root)] == ["done"] * 2


def test_asha_stops_trials_early_and_their_actors_are_gone(ray_local, tmp_path):
    plan = small_plan(search="asha", num_trials=4, num_rungs=3, max_concurrent=2)
    searching = make_searching(
        plan, small_space(plan, RUINOUS_RATE), [GOOD, GOOD, RUINOUS, RUINOUS]
    )
    records = sweep(tmp_path / "sweep", plan, searching=searching)
    done = [r for r in records if r.status == "done"]
    stopped = [r for r in records if r.status == "stopped"]
    assert len(records) == 4 == len(done) + len(stopped)
    assert [r.params["clone.learning_rate"] for r in stopped] == [1.0, 1.0]
    assert {r.step for r in done} == {6} and {r.step for r in stopped} <= {2, 4}
    assert max(r.metrics["worst_truth"] for r in stopped) < min(
        r.metrics["worst_truth"] for r in done
    )
    assert living_actors(r.trial_id for r in records) == []
    for record in done:
        assert RunDirectory(Path(record.folder)).training_file.is_file()


def test_pbt_goes_on_from_another_trials_adapters(ray_local, tmp_path):
    plan = small_plan(search="pbt", num_trials=3, num_rungs=3)
    searching = make_searching(plan, small_space(plan, RUINOUS_RATE), [GOOD, GOOD, RUINOUS])
    records = sweep(tmp_path / "sweep", plan, searching=searching)
    assert [r.status for r in records] == ["done"] * 3
    heirs = [r for r in records if (Path(r.folder) / "adopted.json").is_file()]
    assert heirs
    for heir in heirs:
        training = json.loads((Path(heir.folder) / "adapters/training.json").read_text())
        (step,) = set(training["resumed_at"].values())
        assert step in (2, 4) and len(training["losses"]["amber"]) == 6
        donor = json.loads((Path(heir.folder) / "adopted.json").read_text())["donor"]
        assert donor.endswith(f" at step {step}") and not donor.startswith(heir.trial_id)
    assert living_actors(r.trial_id for r in records) == []


def test_a_trial_that_fails_is_told_and_the_others_go_on(ray_local, tmp_path):
    good = {"targets.penalty_weight": 0.5}
    bad = {"targets.welfare": "generalized_gini", "targets.welfare_omega": [0.7, 0.3]}
    records = sweep(tmp_path / "sweep", small_plan(max_failures=0), searching=listed(bad, good))
    failed, done = sorted(records, key=lambda r: r.status == "done")
    assert (failed.status, done.status) == ("failed", "done")
    assert "ShapeError" in failed.error and "2 omegas" in failed.error
    assert living_actors(r.trial_id for r in records) == []


def test_trials_run_on_both_nodes_of_a_cluster(tmp_path, monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        records = sweep(tmp_path / "sweep", small_plan(num_trials=4))
        assert [r.status for r in records] == ["done"] * 4
        assert {r.node for r in records} == {n["NodeID"] for n in ray.nodes()}
        assert living_actors(r.trial_id for r in records) == []
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_mlflow_and_wandb_note_trials_without_a_network(ray_local, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "sweep"
    plan = small_plan(loggers=("tensorboard", "mlflow", "wandb"))
    (record,) = sweep(root, plan, searching=listed({"targets.penalty_weight": 0.5}))
    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("sweep")
    (noted,) = client.search_runs([experiment.experiment_id])
    assert noted.data.metrics["worst_truth"] == record.metrics["worst_truth"]
    assert noted.data.params["targets.penalty_weight"] == "0.5"
    assert list((root / "wandb").rglob("*.wandb"))
    assert list((root / "tune").rglob("events.out.tfevents*"))
