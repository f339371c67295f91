"""Promises of a small real log: what the definition says, for every setting of the sweep."""

import math
import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from tests.trialign_ray.runs import UNREACHABLE_JUDGE, make_recipe, small_config
from tests.tuning.conftest import scored_run
from trialign_ray.algorithms import algorithm_by_name
from trialign_ray.config import load_config, to_yaml
from trialign_ray.errors import ConfigError, ConvergenceError, DataError
from trialign_ray.run_directory import existing_run
from trialign_ray.targets_frontier import chosen_to_train, find_frontier
from trialign_ray.targets_prediction import known_means, read_swept_log
from trialign_ray.targets_sweep import (
    Point,
    chains_of,
    overrides_of,
    solve_setting,
    sweep,
    swept_targets,
)
from tuning.frontier_grid import setting_name

UNSOLVABLE = {
    "players": "groups",
    "welfare": "power_mean",
    "welfare_exponent": -4.0,
    "truth_weight": 0.0,
    "personalization_weight": 0.0,
}
"""With both weights 0 every return is 0, where a power mean is not concave."""


def test_predicted_truth_and_style_equal_a_naive_loop(log):
    tensors, groups = log.problem.tensors, log.groups
    generator = torch.Generator().manual_seed(0)
    q = torch.rand(tensors.reference_GXK.shape, generator=generator).double() * tensors.mask_GXK
    q = q / q.sum(-1, keepdim=True)
    found = log.predict(q)
    for value, by_group in (
        (log.truth_GXK, found.truth),
        (log.personalization_GXK, found.personalization),
    ):
        for g, group in enumerate(groups):
            means = []
            for x in range(q.shape[1]):
                total = mass = 0.0
                for k in range(q.shape[2]):
                    v = float(value[g, x, k])
                    if tensors.mask_GXK[g, x, k] and not math.isnan(v):
                        total += float(q[g, x, k]) * v
                        mass += float(q[g, x, k])
                if mass > 0:
                    means.append(total / mass)
            assert by_group[group] == pytest.approx(sum(means) / len(means), abs=1e-12)


def test_predicted_truth_is_gold_where_it_is_visible(log):
    gold = log.problem.tensors.truth_GXK
    verified = (gold == 1).any(-1) & log.problem.tensors.is_truth_X
    assert verified.any()
    assert torch.equal(log.truth_GXK[gold == 1], torch.ones(int((gold == 1).sum())).double())


def test_predictions_rest_on_the_heads_mean_and_targets_on_its_pessimistic_estimate(log):
    taken_off = (log.truth_GXK - log.problem.tensors.truth_GXK).nan_to_num()
    assert float(taken_off.min()) >= -1e-6
    assert float(taken_off.max()) > 1e-3


def test_kl_and_inconsistency_equal_a_naive_loop(log):
    tensors, mu = log.problem.tensors, log.reference_GXK
    generator = torch.Generator().manual_seed(1)
    q = mu * torch.rand(mu.shape, generator=generator).double()
    q = q / q.sum(-1, keepdim=True)
    weights = log.problem.weights_G.double() / log.problem.weights_G.double().sum()
    kl = 0.0
    for g, weight in enumerate(weights.tolist()):
        rows = [x for x in range(mu.shape[1]) if bool(tensors.mask_GXK[g, x].any())]
        for x in rows:
            for k in range(mu.shape[2]):
                if mu[g, x, k] > 0:
                    kl += weight / len(rows) * float(q[g, x, k] * (q[g, x, k] / mu[g, x, k]).log())
    found = log.predict(q)
    assert found.kl == pytest.approx(kl, rel=1e-6)  # weights are float32
    divergences = []
    for x in tensors.is_truth_X.nonzero().flatten().tolist():
        p = [{} for _ in log.groups]
        for g in range(len(p)):
            for k in range(mu.shape[2]):
                answer = int(tensors.answer_GXK[g, x, k])
                p[g][answer] = p[g].get(answer, 0.0) + float(q[g, x, k])
        mean = {y: sum(own.get(y, 0.0) for own in p) / len(p) for own in p for y in own}
        entropies = [-sum(v * math.log(v) for v in d.values() if v > 0) for d in (*p, mean)]
        divergences.append(entropies[-1] - sum(entropies[:-1]) / len(p))
    assert found.inconsistency == pytest.approx(sum(divergences) / len(divergences), abs=1e-9)


def test_a_mean_over_known_candidates_leaves_out_what_nobody_knows():
    # Question 0: (.2 * 1 + .3 * 0) / (.2 + .3) = .4. Question 1: nothing known. Mean: .4.
    nan = math.nan
    q = torch.tensor([[[0.2, 0.3, 0.5], [0.5, 0.5, 0.0]], [[1.0, 0, 0], [1.0, 0, 0]]])
    value = torch.tensor([[[1.0, 0.0, nan], [nan, nan, nan]], [[nan] * 3, [nan] * 3]])
    assert known_means(q, value, ("a", "b")) == {"a": pytest.approx(0.4)}


def test_the_log_itself_has_no_kl_and_the_runs_own_setting_is_one_of_the_sweeps(log):
    assert log.predict(log.reference_GXK).kl == pytest.approx(0.0, abs=1e-12)
    own = {"penalty_weight": log.config.targets.penalty_weight}
    (point,) = sweep(log, [own])
    assert log.of_the_run() == point.prediction


@pytest.mark.parametrize("players", ("groups", "group_objectives"))
def test_the_swept_problem_is_the_algorithms_own(log, players):
    settings = {"players": players, "welfare": "gini", "truth_weight": 0.3}
    problem = replace(log.problem, config=swept_targets(log.config, settings))
    trained = algorithm_by_name("trialign").solve(problem)
    found = solve_setting(log, problem.config)
    assert torch.equal(found.policy_GXK, trained.policy_GXK)


def test_a_run_of_an_algorithm_without_a_central_problem_has_a_frontier_too(log):
    baseline = replace(log, config=log.config.model_copy(update={"algorithm": "dpo"}))
    assert baseline.of_the_run() is None
    assert sweep(baseline, [{}])[0].prediction == sweep(log, [{}])[0].prediction
    assert overrides_of(baseline.config, {"kl_weight": 0.2}) == [
        "algorithm=trialign",
        "targets.kl_weight=0.2",
    ]


def test_a_target_inconsistency_of_the_run_does_not_replace_the_swept_lambda(log):
    targets = log.config.targets.model_copy(update={"target_inconsistency": 0.01})
    aimed = replace(log, config=log.config.model_copy(update={"targets": targets}))
    assert swept_targets(aimed.config, {}).target_inconsistency is None
    overrides = overrides_of(aimed.config, {"penalty_weight": 3.0})
    assert load_config(None, overrides).targets.target_inconsistency is None


def test_more_lambda_never_raises_inconsistency(points):
    groups: dict[str, list[Point]] = {}
    for point in points:
        rest = {k: v for k, v in point.settings.items() if k != "penalty_weight"}
        groups.setdefault(setting_name(rest), []).append(point)
    falls = []
    for own in groups.values():
        own.sort(key=lambda p: p.settings["penalty_weight"])
        for less, more in pairwise(own):
            falls.append(less.promise.inconsistency - more.promise.inconsistency)
    assert min(falls) >= -2e-3
    assert len(falls) >= 30 and sum(fall > 1e-3 for fall in falls) >= 10


def test_warm_starts_change_no_promise(log, points):
    for point in points[::17]:
        cold = solve_setting(log, swept_targets(log.config, point.settings))
        assert point.promise.worst_truth == pytest.approx(
            log.predict(cold.policy_GXK).worst_truth, abs=5e-3
        )


def test_welfare_of_a_point_is_that_of_its_utilities(log):
    (point,) = sweep(log, [{"players": "groups", "welfare": "power_mean", "welfare_exponent": 1.0}])
    targets = swept_targets(log.config, point.settings)
    utility = solve_setting(log, targets).utility_G
    assert point.welfare == pytest.approx(float(utility.mean()), abs=1e-6)
    assert point.credit is not None
    assert point.credit["return"] == pytest.approx(dict.fromkeys(log.groups, 1 / len(log.groups)))


def test_a_chain_holds_the_settings_that_differ_in_lambda_and_beta_alone():
    grid = [
        {"welfare": "gini", "penalty_weight": 0.0},
        {"welfare": "maximin", "penalty_weight": 0.0},
        {"welfare": "gini", "penalty_weight": 1.0, "kl_weight": 0.1},
    ]
    assert chains_of(grid) == [[0, 2], [1]]


def test_a_setting_without_a_certificate_is_kept_with_its_reason(log):
    good = {"kl_weight": 0.5}
    points = sweep(log, [good, UNSOLVABLE, {**good, "kl_weight": 1.0}])
    assert [p.prediction is None for p in points] == [False, True, False]
    assert "concave" in points[1].failure
    frontier = find_frontier(points, log.predict(log.reference_GXK))
    assert 1 not in frontier.pareto
    with pytest.raises(ConfigError, match="2 that have a solution"):
        chosen_to_train(points, frontier, 3)


def test_a_grid_with_nothing_in_it_or_nothing_solvable_is_refused(log):
    with pytest.raises(ConfigError, match="no setting"):
        sweep(log, [])
    with pytest.raises(ConvergenceError, match="none of 1 settings"):
        sweep(log, [UNSOLVABLE])
    with pytest.raises(ConfigError, match="kl_weight"):
        sweep(log, [{"kl_weight": -1.0}])
    with pytest.raises(ConfigError, match="penalty_wait"):
        sweep(log, [{"penalty_wait": 1.0}])


def test_a_run_without_log_or_scores_is_refused_with_the_command_that_makes_them(run, tmp_path):
    make_recipe(tmp_path / "new", small_config(), local=True).progress.close()
    with pytest.raises(ConfigError, match=r"no log .*trialign train .*--resume --run-dir"):
        read_swept_log(tmp_path / "new")
    (tmp_path / "new" / "dataset").symlink_to(run / "dataset")
    with pytest.raises(ConfigError, match="no reference scores"):
        read_swept_log(tmp_path / "new")
    with pytest.raises(ConfigError, match="no run directory"):
        read_swept_log(tmp_path / "nothing")


def test_no_scorer_is_built_to_read_a_scored_log(run, log, tmp_path):
    copy = tmp_path / "judged"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("frontier"))
    config = existing_run(run)[1].model_copy(update={"preferences": (UNREACHABLE_JUDGE,)})
    (copy / "config.yaml").write_text(to_yaml(config))
    again = read_swept_log(copy)
    assert again.groups == log.groups
    torch.testing.assert_close(again.truth_GXK, log.truth_GXK, equal_nan=True)


def test_a_log_of_which_nobody_knows_the_truth_has_no_frontier(tmp_path):
    folder = scored_run(
        tmp_path / "blind",
        "collect.label_fraction=0",
        "critic.truth_head=labels",
        "world.train_fraction=0.06",
    )
    with pytest.raises(DataError, match="nobody knows the truth"):
        read_swept_log(folder)
