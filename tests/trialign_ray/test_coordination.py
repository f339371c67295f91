"""Re-coordination: the centre solves again around what the agents answer, and a kill at any time
changes nothing."""

import json
import shutil
import threading
import time
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch

from tests.trialign_ray.runs import adapter_hashes, make_recipe, small_config
from trialign_ray.algorithms import ALGORITHMS
from trialign_ray.algorithms.algorithm import AlgorithmInput
from trialign_ray.candidates import Candidate, GroupView, JointQuestion
from trialign_ray.checkpoint import file_sha256
from trialign_ray.checks import check_names
from trialign_ray.config import TargetsConfig
from trialign_ray.coordination import (
    CENTRE_FLOOR,
    PolicyReport,
    prox_centre,
    reported_policy,
    round_folder,
    round_report,
    solve_around,
)
from trialign_ray.critic import CandidateTensors
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.progress import read_metrics
from trialign_ray.run_directory import open_run
from trialign_ray.training import stops
from trialign_ray.training_rows import write_rows

GROUPS = ("amber", "birch", "cedar", "delta")
OVERRIDES = (
    "clone.steps=45",
    "clone.coordinate_every=15",
    "clone.checkpoint_every=4",
    "collect.temperature=3",  # one base behind all groups: chance alone makes them disagree
    "collect.episodes_per_question=2",
)
"""Three rounds, whose ends are no multiples of what is between checkpoints."""


class Stopped(Exception):
    """The driver's end."""


class StoppingWorkers:
    """Workers that end after so many single calls, as a kill would; nothing more is written."""

    def __init__(self, workers, num_calls):
        self.groups, self._workers, self._left = workers.groups, workers, num_calls

    def _count(self):
        self._left -= 1
        if self._left < 0:
            raise Stopped

    def on_groups(self, verb, arguments):
        results = {}
        for group, args in arguments.items():
            self._count()
            results |= self._workers.on_groups(verb, {group: args})
        return results

    def on_critic(self, verb, *arguments):
        self._count()
        return self._workers.on_critic(verb, *arguments)

    def close(self):
        self._workers.close()


def train(folder, config, local=True, num_calls=None, resume=False):
    """From where the folder is to exported adapters, or to `Stopped`; the recipe."""
    recipe = make_recipe(folder, config, local, resume)
    try:
        for stage in (recipe.fit_behaviour, recipe.collect, recipe.score, recipe.solve):
            stage()
        if num_calls is not None:
            recipe.assembly._workers = StoppingWorkers(recipe.workers, num_calls)
        recipe.clone()
    finally:
        recipe.close()
        recipe.progress.close()
    return recipe


def untrained_copy(run, folder):
    """The run as it is before training."""
    shutil.copytree(
        run.root, folder, ignore=shutil.ignore_patterns("checkpoints", "adapters", "round-*")
    )
    return folder


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
    assert (first["step"], second["step"]) == (15, 30)
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
    assert record["rows_sha256"] == file_sha256(last) and record["step"] == 45


def test_the_same_seed_gives_the_same_adapters(finished, tmp_path, config):
    again = train(untrained_copy(finished, tmp_path / "again"), config, resume=True)
    assert adapter_hashes(again.run_dir) == adapter_hashes(finished)


def test_rounds_change_the_adapters_and_one_round_is_no_coordination(finished, tmp_path):
    """With a round as long as the training, what is trained is what is trained without rounds."""
    hashes = {}
    for every in (0, 12):
        overrides = [*OVERRIDES, "clone.steps=12", f"clone.coordinate_every={every}"]
        folder = untrained_copy(finished, tmp_path / str(every))
        (folder / "config.yaml").unlink()
        shutil.move(folder, tmp_path / "aside")
        config = small_config(*overrides)
        open_run(folder, config, resume=False)
        shutil.copytree(tmp_path / "aside", folder, dirs_exist_ok=True)
        shutil.rmtree(tmp_path / "aside")
        hashes[every] = adapter_hashes(train(folder, config, resume=True).run_dir)
    assert hashes[0] == hashes[12]
    assert set(hashes[0].values()).isdisjoint(adapter_hashes(finished).values())


def test_a_run_that_is_stopped_again_and_again_ends_with_the_same_adapters(
    finished, tmp_path, config
):
    """15 single calls a life: it ends inside rounds, between groups, and between the agents' report
    and the centre's answer."""
    folder = untrained_copy(finished, tmp_path / "stopped")
    lives = 0
    while True:
        lives += 1
        try:
            run = train(folder, config, num_calls=15, resume=True).run_dir
            break
        except Stopped:
            assert lives < 20
    assert lives >= 5
    assert adapter_hashes(run) == adapter_hashes(finished)


def test_a_round_without_its_last_file_is_solved_again_and_a_finished_one_is_not(
    finished, tmp_path, config
):
    folder = untrained_copy(finished, tmp_path / "between")
    calls = 4 * (1 + 4 + 1) + 1  # clone to 0, 4, 8, 12 and 15, the reports, the centre
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
    with pytest.raises(DataError, match="stands at step 45, it is asked for its answers at step 3"):
        recipe.workers.on_groups("policy", {"amber": (30,)})
    report = recipe.workers.on_groups("policy", {"amber": (45,)})["amber"]
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
        inside = recipe.run_dir.checkpoint_dir("birch") / "step-00000019" / "manifest.json"
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
    assert resumed["birch"] >= 15 and resumed["amber"] == 0
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


def two_questions(groups=("g", "h")):
    texts = {"q0": ("a", "b", "c"), "q1": ("a", "b")}
    return [
        JointQuestion(
            name,
            "truth",
            True,
            ("a", "b", "c"),
            {
                g: GroupView("prompt", tuple(Candidate(t, t, None, None, 1) for t in said), *[{}] * 4)
                for g in groups
            },
        )
        for name, said in texts.items()
    ]


MU = torch.tensor([[[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]], [[0.2, 0.4, 0.4], [0.9, 0.1, 0.0]]])


def write_group(folder, group, rows):
    table = [{"question_id": q, "candidate_text": list(texts)} for q, texts in rows]
    write_rows(table, folder / f"{group}.parquet", group)
    return file_sha256(folder / f"{group}.parquet")


def test_reports_find_their_candidates_and_what_nobody_reports_keeps_its_place(tmp_path):
    sha_g = write_group(tmp_path, "g", [("q0", ("c", "a")), ("q1", ("b",))])
    sha_h = write_group(tmp_path, "h", [("q0", ("b",))])
    reports = {
        "g": PolicyReport(sha_g, ((0.75, 0.25), (1.0,))),
        "h": PolicyReport(sha_h, ((1.0,),)),
    }
    p = reported_policy(two_questions(), ("g", "h"), MU, tmp_path, reports)
    expected = [[[0.25, 0.0, 0.75], [0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0], [0.9, 0.1, 0.0]]]
    torch.testing.assert_close(p, torch.tensor(expected).double())
    centre = prox_centre(p, MU)
    # q0 of g: .99 (.25, 0, .75) + .01 (.5, .25, .25)
    by_hand = torch.tensor([0.2525, 0.0025, 0.745], dtype=torch.float64)
    torch.testing.assert_close(centre[0, 0], by_hand)
    assert bool((centre > 0).eq(MU > 0).all()) and CENTRE_FLOOR == 0.01
    torch.testing.assert_close(centre.sum(-1), torch.ones(2, 2).double())


def test_a_report_about_other_rows_is_refused(tmp_path):
    write_group(tmp_path, "g", [("q0", ("a",))])
    with pytest.raises(DataError, match="group g reports on rows"):
        reported_policy(
            two_questions(), ("g",), MU[:1], tmp_path, {"g": PolicyReport("0" * 64, ((1.0,),))}
        )


def problem(penalty_weight=0.0, kl_weight=1.0):
    """Two groups, one question, candidates true and false; mu uniform, equal weights."""
    shape = (2, 1, 2)
    tensors = CandidateTensors(
        reference_GXK=torch.full(shape, 0.5),
        truth_GXK=torch.tensor([1.0, 0.0]).expand(shape).clone(),
        personalization_GXK=torch.full(shape, torch.nan),
        answer_GXK=torch.tensor([0, 1]).expand(shape).clone(),
        mask_GXK=torch.ones(shape, dtype=torch.bool),
        is_truth_X=torch.tensor([True]),
    )
    config = TargetsConfig(
        welfare="power_mean",
        welfare_exponent=1.0,
        players="groups",
        penalty_weight=penalty_weight,
        kl_weight=kl_weight,
    )
    return AlgorithmInput(tensors, config, torch.ones(2), seed=0)


def test_solving_around_a_policy_takes_one_more_step_from_there():
    """Utilitarian, lambda 0, beta 1, w_g = 1/2 in W and in KL: q is proportional to c exp(Q).

    Around mu = 1/2: sigmoid(1) = .731059. Around c = .99 p + .01 mu with p = (.8, .2), that is
    c = (.797, .203): odds .797 e / .203 = 10.6723, q = .914327.
    """
    trialign = ALGORITHMS["trialign"]
    at_mu = solve_around(trialign, problem(), problem().tensors.reference_GXK.double())
    assert at_mu.policy_GXK[0, 0, 0] == pytest.approx(0.731059, abs=1e-3)
    agents = torch.tensor([0.8, 0.2], dtype=torch.float64).expand(2, 1, 2)
    around = solve_around(trialign, problem(), agents)
    assert around.policy_GXK[0, 0, 0] == pytest.approx(0.914327, abs=1e-3)


def test_candidates_still_rank_by_what_they_gained_over_the_log():
    """log(q / mu), not log(q / c): the losses that read it are relative to the reference model."""
    agents = torch.tensor([0.8, 0.2], dtype=torch.float64).expand(2, 1, 2)
    targets = solve_around(ALGORITHMS["trialign"], problem(), agents)
    torch.testing.assert_close(targets.value_GXK, (targets.policy_GXK / 0.5).log())


def test_the_order_of_groups_does_not_matter():
    agents = torch.tensor([[[0.8, 0.2]], [[0.3, 0.7]]], dtype=torch.float64)
    one = solve_around(ALGORITHMS["trialign"], problem(penalty_weight=1.0), agents)
    other = solve_around(ALGORITHMS["trialign"], problem(penalty_weight=1.0), agents.flip(0))
    torch.testing.assert_close(one.policy_GXK, other.policy_GXK.flip(0), atol=1e-6, rtol=0)


def test_the_report_of_a_round_measures_disagreement_and_the_way_to_go():
    """p = (1, 0) and (0, 1): GJSD ln 2. Targets (.5, .5) of both: total variation .5."""
    agents = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)
    report = round_report(problem(), agents, torch.full((2, 1, 2), 0.5).double())
    assert report["agents_inconsistency"] == pytest.approx(0.693147, abs=1e-6)
    assert report["distance_to_targets"] == pytest.approx(0.5)
    absent = problem()
    mask = absent.tensors.mask_GXK.clone()
    mask[1] = False
    absent = replace(absent, tensors=replace(absent.tensors, mask_GXK=mask))
    alone = round_report(absent, agents, torch.full((2, 1, 2), 0.5).double())
    assert alone["agents_inconsistency"] == pytest.approx(0.0, abs=1e-12)
    assert alone["distance_to_targets"] == pytest.approx(0.5)
