"""The central problem on degenerate input, and the slopes of penalties."""

import math

import pytest
import torch

from trialign_ray.central.slopes import penalty_with_slope
from trialign_ray.errors import ConfigError, DataError, ShapeError
from trialign_ray.ops.inconsistency import PENALTIES, generalized_jsd
from trialign_ray.ops.welfare import GeneralizedGini, LogNash, PowerMean, SoftMin
from trialign_ray.targets import solve_central

WELFARES = [LogNash(), PowerMean(-1), SoftMin(), GeneralizedGini.gini(), GeneralizedGini.maximin()]
each_welfare = pytest.mark.parametrize("welfare", WELFARES, ids=lambda w: type(w).__name__)


def problem(seed=0, num_groups=3, num_questions=4, num_candidates=3):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_groups, num_questions, num_candidates)
    value, reference = (torch.rand(shape, generator=generator) + 0.1 for _ in range(2))
    answers = torch.randint(0, 3, shape, generator=generator)
    return value, reference, answers, torch.ones(num_questions, dtype=torch.bool)


def solve(inputs, welfare=WELFARES[0], **options):
    defaults = {"penalty": generalized_jsd, "penalty_weight": 1.0, "kl_weight": 0.1}
    return solve_central(*inputs, welfare=welfare, **(defaults | options))


def full_mask():
    return torch.ones(3, 4, 3, dtype=torch.bool)


@each_welfare
def test_a_question_with_one_candidate_has_it_for_certain(welfare):
    mask = full_mask()
    mask[1, 2, 1:] = False
    policy = solve(problem(), welfare, candidate_mask_GXK=mask).policy_GXK
    assert policy[1, 2].tolist() == pytest.approx([1, 0, 0])
    assert torch.allclose(policy.sum(-1), torch.ones(3, 4, dtype=torch.float64))


@each_welfare
def test_a_group_absent_from_a_question_counts_on_its_other_questions_alone(welfare):
    value, reference, answers, truth = problem(1)
    mask = full_mask()
    mask[0, 3] = False
    solution = solve((value, reference, answers, truth), welfare, candidate_mask_GXK=mask)
    assert solution.policy_GXK[0, 3].tolist() == [0, 0, 0]
    mean = (solution.policy_GXK[0, :3] * value[0, :3]).sum() / 3
    assert float(solution.utility_G[0]) == pytest.approx(float(mean))


def test_a_question_that_one_group_alone_answers_is_not_penalised():
    inputs, mask = problem(2), full_mask()
    mask[1:, 0] = False
    solution = solve(inputs, PowerMean(1), candidate_mask_GXK=mask)
    # Its penalty and W's slope w_g / X_g against s = beta w_g / X_g leave mu exp(v / beta).
    expected = (inputs[1][0, 0].double().log() + inputs[0][0, 0].double() / 0.1).softmax(-1)
    assert torch.allclose(solution.policy_GXK[0, 0], expected, atol=1e-3)


@each_welfare
def test_a_group_without_any_candidate_is_absent(welfare):
    mask = full_mask()
    mask[2] = False
    whole = solve(problem(3), welfare, candidate_mask_GXK=mask, tol=1e-7)
    value, reference, answers, truth = problem(3)
    pair = solve((value[:2], reference[:2], answers[:2], truth), welfare, tol=1e-7)
    assert torch.allclose(whole.policy_GXK[:2], pair.policy_GXK, atol=1e-3)
    assert float(whole.policy_GXK[2].sum()) == 0 and float(whole.credit_G[2]) == 0


@each_welfare
def test_equal_returns_leave_the_log_as_it_is(welfare):
    _, reference, answers, truth = problem(4)
    inputs = (torch.full_like(reference, 0.4), reference, answers, truth)
    policy = solve(inputs, welfare, penalty_weight=0.0).policy_GXK
    mu = reference.double() / reference.double().sum(-1, keepdim=True)
    assert torch.allclose(policy, mu, atol=1e-6)


@each_welfare
def test_returns_that_nobody_knows_do_not_move_the_others(welfare):
    value, reference, answers, truth = problem(5)
    both = torch.stack([value, torch.zeros_like(value)])
    known = torch.tensor([[True] * 3, [False] * 3])
    masked = solve((both, reference, answers, truth), welfare, player_present_JG=known, tol=1e-7)
    alone = solve((value, reference, answers, truth), welfare, tol=1e-7)
    assert torch.allclose(masked.policy_GXK, alone.policy_GXK, atol=1e-3)


def test_nothing_known_at_all_is_refused():
    with pytest.raises(DataError, match="known returns"):
        solve(problem(), player_present_JG=torch.zeros(3, dtype=torch.bool))


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_penalty_weight_that_is_no_price_is_refused(weight):
    with pytest.raises(ConfigError, match="penalty_weight"):
        solve(problem(), penalty_weight=weight)


@pytest.mark.parametrize("weight", [0.0, -0.1, math.nan, math.inf])
def test_a_kl_weight_that_is_no_price_is_refused(weight):
    with pytest.raises(ConfigError, match="kl_weight"):
        solve(problem(), kl_weight=weight)


def test_a_tolerance_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="tolerance"):
        solve(problem(), tol=0.0)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_none_is_refused(which, bad):
    inputs = problem()
    inputs[which][1, 2, 0] = bad
    with pytest.raises(DataError, match=r"NaN or infinite|finite"):
        solve(inputs)
    mask = full_mask()
    mask[1, 2, 0] = False
    assert torch.isfinite(solve(inputs, candidate_mask_GXK=mask).policy_GXK).all()


def test_wrong_shapes_are_refused():
    value, reference, answers, truth = problem()
    for wrong in (
        (value[:2], reference, answers, truth),
        (value, reference[0], answers, truth),
        (value, reference, answers[..., :2], truth),
        (value, reference, answers, truth[:1]),
        (value[:, :0], reference[:, :0], answers[:, :0], truth[:0]),
    ):
        with pytest.raises(ShapeError, match="expected"):
            solve(wrong)
    with pytest.raises(ShapeError, match="player_present"):
        solve(problem(), player_present_JG=torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize("name", PENALTIES)
def test_closed_slopes_are_those_of_autograd(name):
    generator = torch.Generator().manual_seed(0)
    p = torch.rand((7, 4, 5), generator=generator, dtype=torch.float64)
    p = (p / p.sum(-1, keepdim=True)).requires_grad_(True)
    weights = torch.rand((7, 4), generator=generator, dtype=torch.float64)
    weights[0, 1:] = 0
    weights[1, 0] = 0
    d_X = PENALTIES[name](p, weights)
    (slope,) = torch.autograd.grad(d_X.sum(), p)
    value, closed = penalty_with_slope(PENALTIES[name], p.detach(), weights)
    assert torch.allclose(value, d_X.detach(), atol=1e-12) and not closed.requires_grad
    # On a simplex slopes that differ by a constant per row are the same slope.
    assert torch.allclose(
        closed - closed.mean(-1, keepdim=True), slope - slope.mean(-1, keepdim=True), atol=1e-10
    )


def test_a_penalty_of_ones_own_is_differentiated_for_it():
    def squared_distance(p_XGY, weights_XG):
        return (p_XGY[:, 0] - p_XGY[:, 1]).square().sum(-1)

    loose, tight = (
        solve(problem(7), penalty=squared_distance, penalty_weight=weight) for weight in (0.0, 10.0)
    )
    assert tight.inconsistency < loose.inconsistency / 10
