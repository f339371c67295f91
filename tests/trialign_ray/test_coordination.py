"""Re-coordination: the centre solves again around what the agents answer, and a kill at any time
changes nothing."""

import json
import shutil
import threading
import time

import pyarrow.parquet as pq
import pytest

from tests.trialign_ray.runs import adapter_hashes, make_recipe, small_config
from tests.trialign_ray.stopped_runs import Stopped, train, train_in_lives, untrained_copy
from trialign_ray.checkpoint import file_sha256
from trialign_ray.checks import check_names
from trialign_ray.coordination import (
    round_folder,
)
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.progress import read_metrics
from trialign_ray.run_directory import RunDirectory, open_run
from trialign_ray.training import stops

GROUPS = ("amber", "birch", "cedar", "delta")
OVERRIDES = (
    "clone.steps=30",
    "clone.coordinate_every=10",
    "clone.checkpoint_every=4",
    "collect.temperature=3",  # one base behind all groups: chance alone makes them disagree
    "collect.episodes_per_question=2",
)
"""Three rounds, whose ends are no multiples of what is between checkpoints."""


@pytest.fixture(scope="module")
def config():
    return small_config(*OVERRIDES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, config):
    return train(tmp_path_factory.mktemp("rounds") / "run", config).run_dir


def rounds_of(run):
    return [m for m in read_metrics(run.root) if "coordinate/agents_inconsistency" in m]


def test_agents_come_to_agree_and_near_their_targets_round_by_round(finished):
    first, second = rounds_of(finished)
    assert (first["step"], second["step"]) == (10, 20)
    for name in ("coordinate/agents_inconsistency", "coordinate/distance_to_targets"):
        assert 0 < second[name] < 0.95 * first[name]
    assert first["coordinate/inconsistency"] < 0.1 * first["coordinate/agents_inconsistency"]


def test_every_round_has_rows_of_its_own_and_a_certified_solution(finished):
    targets = finished.root / "targets"
    seen = []
    for number in range(3):
        folder = round_folder(targets, number)
        solution = json.loads((folder / "solution.json").read_text())
        assert solution["gap"] <= 1e-4 * abs(solution["objective"]) + 1e-9
        seen.append({g: file_sha256(folder / f"{g}.parquet") for g in GROUPS})
        for row in pq.read_table(folder / "amber.parquet").to_pylist():
            assert sum(row["target"]) == pytest.approx(1.0)
    assert not (targets / "round-3").exists()
    assert all(seen[r][g] != seen[r + 1][g] for r in range(2) for g in GROUPS)


def test_an_adapter_says_which_rows_it_saw_last(finished):
    record = json.loads((finished.adapter_dir("birch") / "trialign.json").read_text())
    last = finished.root / "targets" / "round-2" / "birch.parquet"
    assert record["rows_sha256"] == file_sha256(last) and record["step"] == 30


def test_the_same_seed_gives_the_same_adapters(finished, tmp_path, config):
    again = train(untrained_copy(finished, tmp_path / "again"), config, resume=True)
    assert adapter_hashes(again.run_dir) == adapter_hashes(finished)


def test_rounds_change_the_adapters_and_one_round_is_no_coordination(finished, tmp_path):
    """With a round as long as the training, what is trained is what is trained without rounds."""
    hashes = {}
    for every in (0, 6):
        overrides = [*OVERRIDES, "clone.steps=6", f"clone.coordinate_every={every}"]
        folder = untrained_copy(finished, tmp_path / str(every))
        (folder / "config.yaml").unlink()
        shutil.move(folder, tmp_path / "aside")
        config = small_config(*overrides)
        open_run(folder, config, resume=False)
        shutil.copytree(tmp_path / "aside", folder, dirs_exist_ok=True)
        shutil.rmtree(tmp_path / "aside")
        hashes[every] = adapter_hashes(train(folder, config, resume=True).run_dir)
    assert hashes[0] == hashes[6]
    assert set(hashes[0].values()).isdisjoint(adapter_hashes(finished).values())


def test_a_run_that_is_stopped_again_and_again_ends_with_the_same_adapters(
    finished, tmp_path, config
):
    """15 single calls a life: it ends inside rounds, between groups, and between the agents' report
    and the centre's answer."""
    folder = untrained_copy(finished, tmp_path / "stopped")
    assert train_in_lives(folder, config, num_calls=15) >= 4
    assert adapter_hashes(RunDirectory(folder)) == adapter_hashes(finished)


def test_a_round_without_its_last_file_is_solved_again_and_a_finished_one_is_not(
    finished, tmp_path, config
):
    folder = untrained_copy(finished, tmp_path / "between")
    calls = 4 * (1 + 3 + 1) + 1  # clone to 0, 4, 8 and 10, the reports, the centre
    with pytest.raises(Stopped):
        train(folder, config, num_calls=calls, resume=True)
    solution = folder / "targets" / "round-1" / "solution.json"
    rows = solution.with_name("amber.parquet")
    before, wrote = file_sha256(rows), rows.stat().st_mtime_ns
    with pytest.raises(Stopped):
        train(folder, config, num_calls=4, resume=True)
    assert rows.stat().st_mtime_ns == wrote
    solution.unlink()
    rows.unlink()
    run = train(folder, config, resume=True).run_dir
    assert file_sha256(rows) == before
    assert adapter_hashes(run) == adapter_hashes(finished)


def test_rows_that_a_checkpoint_was_not_trained_on_are_refused(finished, tmp_path, config):
    copy = tmp_path / "copy"
    shutil.copytree(finished.root, copy)
    shutil.rmtree(copy / "adapters")
    last, other = copy / "targets" / "round-2", copy / "targets" / "round-1"
    shutil.copy(other / "amber.parquet", last / "amber.parquet")
    with pytest.raises(ConfigError, match=r"rows of round 2 have"):
        train(copy, config, resume=True)
    (last / "amber.parquet").unlink()
    with pytest.raises(DataError, match="no training rows of round 2"):
        train(copy, config, resume=True)


def test_answers_are_not_given_where_the_next_round_has_begun(finished, tmp_path, config):
    copy = tmp_path / "copy"
    shutil.copytree(finished.root, copy)
    shutil.rmtree(copy / "adapters")
    recipe = make_recipe(copy, config, local=True, resume=True)
    with pytest.raises(DataError, match="stands at step 30, it is asked for its answers at step 2"):
        recipe.workers.on_groups("policy", {"amber": (20,)})
    report = recipe.workers.on_groups("policy", {"amber": (30,)})["amber"]
    rows = pq.read_table(copy / "targets" / "round-2" / "amber.parquet").to_pylist()
    assert [len(p) for p in report.policy] == [len(r["target"]) for r in rows]
    assert all(sum(p) == pytest.approx(1.0) for p in report.policy)
    recipe.close()


@pytest.mark.ray
def test_a_group_and_the_centre_killed_inside_a_round_lose_nothing(
    ray_local, finished, tmp_path, config
):
    folder = untrained_copy(finished, tmp_path / "killed")
    recipe = make_recipe(folder, config, local=False, resume=True)

    def kill_in_the_second_round():
        deadline = time.monotonic() + 120
        inside = recipe.run_dir.checkpoint_dir("birch") / "step-00000012" / "manifest.json"
        while not inside.is_file() and time.monotonic() < deadline:
            time.sleep(0.002)
        for name in ("group-birch", "critic"):
            ray_local.kill(ray_local.get_actor(f"trialign/killed/{name}"), no_restart=False)

    thread = threading.Thread(target=kill_in_the_second_round)
    try:
        assert recipe.workers.groups == GROUPS
        thread.start()
        recipe.clone()
        thread.join()
    finally:
        recipe.close()
        recipe.progress.close()
    resumed = json.loads(recipe.run_dir.training_file.read_text())["resumed_at"]
    assert resumed["birch"] >= 12 and resumed["amber"] == 0
    assert adapter_hashes(recipe.run_dir) == adapter_hashes(finished)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("algorithm=dpo", "clone.coordinate_every=5"), "solves no central problem"),
        (("algorithm=pooled_dpo", "clone.coordinate_every=5"), "solves no central problem"),
        (("algorithm=pooled_dpo", "clone.shared_rank=4"), r"one adapter \(pooled\)"),
        (("algorithm=maxmin", "clone.shared_rank=4"), r"one adapter \(worst_group\)"),
    ],
)
def test_what_cannot_be_coordinated_or_shared_is_refused_with_the_reason(overrides, message):
    with pytest.raises(ConfigError, match=message):
        check_names(small_config(*overrides))


@pytest.mark.parametrize("algorithm", ["trialign", "consistency_only"])
def test_central_algorithms_may_be_coordinated(algorithm):
    check_names(small_config(f"algorithm={algorithm}", "clone.coordinate_every=5"))


def test_a_round_that_never_begins_is_warned_of(caplog):
    check_names(small_config("clone.steps=5", "clone.coordinate_every=5"))
    assert "training ends before a second round" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, 30, 10, 0), [10, 20, 30]),
        ((0, 30, 20, 0), [20, 30]),
        ((0, 30, 20, 15), [15, 20, 30]),
        ((15, 30, 20, 15), [30]),
        ((17, 45, 10, 15), [27, 30, 37, 45]),
        ((30, 30, 10, 15), [30]),
        ((0, 5, 10, 15), [5]),
    ],
)
def test_the_driver_looks_at_every_end_of_a_round_and_at_the_last_update(arguments, expected):
    assert stops(*arguments) == expected
