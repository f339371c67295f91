"""The least penalty weight that reaches an inconsistency, and warm starts."""

import pytest
import torch

from trialign_ray.errors import ConfigError, ConvergenceError, DataError, ShapeError
from trialign_ray.ops.inconsistency import excess_disagreement, generalized_jsd
from trialign_ray.ops.welfare import GeneralizedGini, LogNash, PowerMean
from trialign_ray.targets import solve_central, solve_to_inconsistency


def problem(seed, num_groups=3, num_questions=6, num_candidates=5):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_groups, num_questions, num_candidates)
    value, reference = (torch.rand(shape, generator=generator) for _ in range(2))
    answers = torch.arange(num_candidates).expand(shape) % 3
    return value, reference + 0.05, answers, torch.ones(num_questions, dtype=torch.bool)


OPTIONS = {"welfare": LogNash(), "penalty": generalized_jsd, "kl_weight": 0.1}


@pytest.mark.parametrize("penalty", [generalized_jsd, excess_disagreement])
@pytest.mark.parametrize("welfare", [LogNash(), PowerMean(1), GeneralizedGini.gini()], ids=str)
@pytest.mark.parametrize("part", [0.7, 0.2, 0.02])
def test_the_least_weight_is_found(penalty, welfare, part):
    inputs, options = problem(0), {"welfare": welfare, "penalty": penalty, "kl_weight": 0.1}
    free = solve_central(*inputs, penalty_weight=0.0, **options).inconsistency
    target = part * free
    solution, weight = solve_to_inconsistency(*inputs, target_inconsistency=target, **options)
    assert solution.inconsistency <= target and weight > 0
    again = solve_central(*inputs, penalty_weight=weight, tol=1e-8, **options)
    assert again.inconsistency == pytest.approx(solution.inconsistency, rel=5e-3)
    lighter = solve_central(*inputs, penalty_weight=0.98 * weight, tol=1e-8, **options)
    assert lighter.inconsistency > target


def test_a_target_that_is_met_for_free_costs_nothing():
    free = solve_central(*problem(1), penalty_weight=0.0, **OPTIONS, tol=1e-7).inconsistency
    solution, weight = solve_to_inconsistency(*problem(1), target_inconsistency=free, **OPTIONS)
    assert weight == 0.0 and solution.inconsistency <= free


def test_two_groups_of_two_answers_have_the_weight_of_the_first_order_condition():
    # W = mean of U, returns (1, 0) and (0, 1), mu uniform, so p = (x, 1-x) and (1-x, x). Per group
    # J is x - lambda JSD(x) - beta KL(x), JSD = ln 2 - H(x), KL = ln 2 - H(x), H' = log((1-x)/x):
    # 1 = (lambda + beta) log(x / (1-x)). For x = .6, beta = .1: lambda = 1 / log 1.5 - .1.
    value = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    answers = torch.tensor([[[0, 1]], [[0, 1]]])
    entropy = -(0.6 * torch.tensor(0.6).log() + 0.4 * torch.tensor(0.4).log())
    target = float(torch.tensor(2.0).log() - entropy)
    _, weight = solve_to_inconsistency(
        value,
        torch.ones(2, 1, 2),
        answers,
        torch.tensor([True]),
        target_inconsistency=target,
        welfare=PowerMean(1),
        penalty=generalized_jsd,
        kl_weight=0.1,
    )
    assert weight == pytest.approx(1 / float(torch.tensor(1.5).log()) - 0.1, rel=2e-3)


def test_groups_without_a_common_answer_cannot_agree_and_the_error_says_how_near_they_came():
    value, reference, answers, truth = problem(2)
    apart = answers + 3 * torch.arange(3).reshape(3, 1, 1)
    with pytest.raises(ConvergenceError, match=r"reaches 1\.099"):  # log 3
        solve_to_inconsistency(value, reference, apart, truth, target_inconsistency=0.5, **OPTIONS)
    with pytest.raises(ConvergenceError, match=r"penalty weight 0\.2"):
        solve_to_inconsistency(
            *problem(2), target_inconsistency=1e-3, max_penalty_weight=0.2, **OPTIONS
        )


@pytest.mark.parametrize("target", [-0.1, float("nan")])
def test_an_impossible_target_is_refused(target):
    with pytest.raises(ConfigError, match="target inconsistency"):
        solve_to_inconsistency(*problem(3), target_inconsistency=target, **OPTIONS)


@pytest.mark.parametrize("welfare", [LogNash(), GeneralizedGini.maximin()], ids=str)
def test_a_warm_start_changes_the_work_and_not_the_answer(welfare):
    options = OPTIONS | {"welfare": welfare, "kl_weight": 0.02, "tol": 1e-6}
    near = solve_central(*problem(4), penalty_weight=4.0, **options)
    cold = solve_central(*problem(4), penalty_weight=4.1, **options)
    warm = solve_central(
        *problem(4),
        penalty_weight=4.1,
        initial_GXK=near.policy_GXK,
        initial_credit_G=near.credit_G,
        **options,
    )
    assert warm.num_iterations < cold.num_iterations
    assert warm.objective == pytest.approx(cold.objective, abs=cold.gap + warm.gap)
    assert torch.allclose(warm.policy_GXK, cold.policy_GXK, atol=5e-3)


def test_a_start_that_is_one_sided_is_left_again():
    corner = torch.zeros(3, 6, 5)
    corner[..., 0] = 1
    cold = solve_central(*problem(5), penalty_weight=1.0, **OPTIONS, tol=1e-6)
    warm = solve_central(*problem(5), penalty_weight=1.0, initial_GXK=corner, **OPTIONS, tol=1e-6)
    assert torch.allclose(warm.policy_GXK, cold.policy_GXK, atol=5e-3)


def test_another_reference_is_the_prox_centre():
    # With a heavy KL term the solution stays at whatever reference it is given.
    value, reference, answers, truth = problem(6)
    for mu in (reference.double(), reference.double().flip(-1)):
        policy = solve_central(
            value,
            mu,
            answers,
            truth,
            welfare=LogNash(),
            penalty=generalized_jsd,
            penalty_weight=1.0,
            kl_weight=1e4,
        ).policy_GXK
        assert torch.allclose(policy, mu / mu.sum(-1, keepdim=True), atol=1e-3)


def test_a_start_of_the_wrong_shape_or_with_negative_mass_is_refused():
    with pytest.raises(ShapeError, match="initial policy"):
        solve_central(*problem(7), penalty_weight=1.0, initial_GXK=torch.ones(3, 6, 4), **OPTIONS)
    for wrong in (-1.0, float("nan")):
        start = torch.full((3, 6, 5), wrong)
        with pytest.raises(DataError, match="negative, infinite or NaN"):
            solve_central(*problem(7), penalty_weight=1.0, initial_GXK=start, **OPTIONS)
    with pytest.raises(ShapeError, match="initial credit"):
        solve_central(*problem(7), penalty_weight=1.0, initial_credit_G=torch.ones(2), **OPTIONS)
