"""Welfares with kinks: the proximal welfare, its projection, and certified solutions.

Shapes: J objectives, G groups, P players, X questions, K candidates.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from trialign_ray.central.rank_linear import ProximalWelfare, isotonic_decreasing
from trialign_ray.errors import ConvergenceError
from trialign_ray.ops.inconsistency import generalized_jsd
from trialign_ray.ops.welfare import GeneralizedGini, PowerMean, SoftMin
from trialign_ray.targets import solve_central

WELFARES = {
    "gini": GeneralizedGini.gini(),
    "cvar": GeneralizedGini.cvar(level=0.3),
    "maximin": GeneralizedGini.maximin(),
    "power_mean": PowerMean(-math.inf),
}


def problem(seed, num_objectives=1, num_groups=3, num_questions=4, num_candidates=4):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_groups, num_questions, num_candidates)
    value = torch.rand((num_objectives, *shape), generator=generator)
    value = value * (0.2 + torch.rand((num_objectives, num_groups, 1, 1), generator=generator))
    reference = torch.rand(shape, generator=generator) + 0.05
    answers = torch.randint(0, 3, shape, generator=generator)
    return value, reference, answers, torch.ones(num_questions, dtype=torch.bool)


def solve(inputs, welfare, **options):
    defaults = {"penalty": generalized_jsd, "penalty_weight": 0.0, "kl_weight": 0.1}
    return solve_central(*inputs, welfare=welfare, **(defaults | options))


def objective(q, inputs, welfare, penalty_weight, kl_weight, weights):
    """J(q) from its definition, question by question; the player of (j, g) weighs w_g."""
    value, reference, answers, _ = inputs
    num_questions, num_answers = q.shape[1], int(answers.max()) + 1
    mu = (reference / reference.sum(-1, keepdim=True)).double()
    mu = mu / mu.sum(-1, keepdim=True)
    utility = (q * value).sum((-1, -2)).flatten() / num_questions
    total = float(welfare.value(utility, weights.repeat(len(value))))
    for x in range(num_questions):
        answer_of = torch.nn.functional.one_hot(answers[:, x], num_answers).double()
        p = torch.einsum("gk,gky->gy", q[:, x], answer_of)
        total -= penalty_weight * float(generalized_jsd(p, weights)) / num_questions
        kl = torch.special.xlogy(q[:, x], q[:, x] / mu[:, x]).sum(-1)
        total -= kl_weight * float((weights * kl).sum()) / num_questions
    return total


def test_isotonic_regression_pools_what_is_out_of_order():
    # 3, 1, 2 has one violation of the decrease: 1 and 2, weights 1 and 3, pool to 7/4.
    target, weights = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 3.0])
    assert isotonic_decreasing(target, weights).tolist() == [3.0, 1.75, 1.75]


@given(seed=st.integers(0, 10_000), size=st.integers(1, 24))
@settings(deadline=None, max_examples=30)
def test_isotonic_regression_is_that_of_scikit_learn(seed, size):
    generator = torch.Generator().manual_seed(seed)
    target, weights = torch.rand(2, size, generator=generator, dtype=torch.float64)
    theirs = IsotonicRegression(increasing=False).fit_transform(
        range(size), target.numpy(), sample_weight=weights.numpy() + 0.01
    )
    assert isotonic_decreasing(target, weights + 0.01).numpy() == pytest.approx(theirs)


def test_the_proximal_maximin_of_two_is_the_projection_on_a_simplex():
    # Omega is the simplex, centre (1/2, 1/2), w = 1/2, rho = 1: minimise omega_1 u_1 + omega_2 u_2
    # + sum (omega - 1/2)^2. With u = (0, 1): derivative 2 (omega_1 - omega_2) = 1, so (.75, .25);
    # the value is .25 + 2 * .0625 = .375. With u = (0, 3) the corner (1, 0): 2 * .25 = .5.
    smooth = ProximalWelfare(GeneralizedGini.maximin(), torch.tensor([0.5, 0.5]), 1.0)
    for u, omega, value in (((0, 1), (0.75, 0.25), 0.375), ((0, 3), (1.0, 0.0), 0.5)):
        returns = torch.tensor(u, dtype=torch.float)
        assert smooth.credit(returns).tolist() == pytest.approx(omega)
        assert float(smooth.value(returns)) == pytest.approx(value)


@pytest.mark.parametrize("welfare", list(WELFARES.values())[:3], ids=list(WELFARES)[:3])
def test_the_proximal_welfare_is_a_smooth_majorant_that_touches_where_it_is_centred(welfare):
    generator = torch.Generator().manual_seed(1)
    u, weights, step = torch.rand(3, 6, generator=generator, dtype=torch.float64)
    weights = weights / weights.sum()
    smooth = ProximalWelfare(welfare, weights, 3.0)
    assert smooth.value(u, weights) >= welfare.value(u, weights)
    credit = smooth.credit(u, weights)
    assert float(credit.sum()) == pytest.approx(1) and float(credit.min()) >= 0
    rise = smooth.value(u + 1e-6 * step, weights) - smooth.value(u - 1e-6 * step, weights)
    assert float(rise) / 2e-6 == pytest.approx(float((credit * step).sum()), rel=1e-5)
    touching = ProximalWelfare(welfare, welfare.credit(u, weights), 3.0)
    assert float(touching.value(u, weights)) == pytest.approx(float(welfare.value(u, weights)))


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    welfare=st.sampled_from(list(WELFARES)),
    num_groups=st.sampled_from([1, 2, 12]),
    num_objectives=st.sampled_from([1, 2]),
    penalty_weight=st.sampled_from([0.0, 0.3, 4.0]),
    kl_weight=st.sampled_from([0.02, 0.1, 1.0]),
)
def test_no_other_policy_beats_the_certificate_up_to_24_players(
    seed, welfare, num_groups, num_objectives, penalty_weight, kl_weight
):
    inputs = problem(seed, num_objectives, num_groups)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(num_groups, generator=generator, dtype=torch.float64) + 0.1
    weights = weights / weights.sum()
    prices = {"penalty_weight": penalty_weight, "kl_weight": kl_weight}
    solution = solve(inputs, WELFARES[welfare], weights_G=weights, **prices)
    q = solution.policy_GXK
    stated = objective(q, inputs, WELFARES[welfare], **prices, weights=weights)
    assert solution.objective == pytest.approx(stated, abs=1e-6)
    assert solution.gap <= max(1e-4 * abs(solution.objective), 1e-7)
    for size in (0.001, 0.03, 1.0):
        noise = torch.randn(q.shape, generator=generator, dtype=torch.float64)
        rival = (q.clamp_min(1e-300).log() + size * noise).softmax(-1)
        worth = objective(rival, inputs, WELFARES[welfare], **prices, weights=weights)
        assert worth <= solution.objective + solution.gap + 1e-6


@pytest.mark.parametrize("welfare", list(WELFARES.values()), ids=list(WELFARES))
def test_the_credit_at_a_kink_is_the_one_that_makes_the_policy_optimal(welfare):
    # lambda = 0: q is exactly proportional to mu exp(c_g v / (beta w_g)).
    inputs = problem(3)
    solution = solve(inputs, welfare, tol=1e-7)
    value, reference, *_ = inputs
    tilt = 3 * solution.credit_G.reshape(3, 1, 1) * value[0].double() / 0.1
    expected = (reference.double().log() + tilt).softmax(-1)
    assert torch.allclose(solution.policy_GXK, expected, atol=1e-3)
    assert float(solution.credit_G.sum()) == pytest.approx(1, abs=1e-6)


def test_maximin_makes_equal_what_can_be_made_equal():
    # Payoffs (1, 0) and (.8, 0), mu uniform: with omega = (o, 1 - o) the two returns are
    # sigmoid(2 o / beta) and .8 sigmoid(1.6 (1 - o) / beta), equal at the saddle point.
    value = torch.tensor([[[[1.0, 0.0]], [[0.8, 0.0]]]])
    inputs = (value, torch.ones(2, 1, 2), torch.zeros(2, 1, 2, dtype=torch.long), torch.ones(1) > 0)
    solution = solve(inputs, GeneralizedGini.maximin(), kl_weight=1.0, tol=1e-8)
    first, second = solution.utility_G.flatten().tolist()
    share = solution.credit_G.flatten().tolist()[0]
    assert first == pytest.approx(second, abs=1e-5) and 0 < share < 1
    assert first == pytest.approx(1 / (1 + math.exp(-2 * share)), abs=1e-5)


def test_the_exponent_minus_infinity_is_maximin():
    inputs = problem(5, num_objectives=2)
    one = solve(inputs, PowerMean(-math.inf), penalty_weight=1.0)
    other = solve(inputs, GeneralizedGini.maximin(), penalty_weight=1.0)
    assert torch.equal(one.policy_GXK, other.policy_GXK)


def test_a_cold_soft_minimum_nears_maximin():
    inputs = problem(6)
    hard = solve(inputs, GeneralizedGini.maximin(), tol=1e-6)
    soft = solve(inputs, SoftMin(1e-3), tol=1e-6)
    # 0 <= SoftMin - min <= temperature * log(1 / smallest weight) = .001 * log 3.
    assert -1e-5 <= soft.objective - hard.objective <= 1e-3 * math.log(3) + 1e-5


def test_a_player_of_unknown_returns_does_not_become_the_worst_off():
    value, reference, answers, truth = problem(7)
    both = torch.cat([value, torch.zeros_like(value)])
    known = torch.tensor([[True] * 3, [False] * 3])
    inputs = (both, reference, answers, truth)
    masked = solve(inputs, GeneralizedGini.gini(), player_present_JG=known)
    alone = solve((value, reference, answers, truth), GeneralizedGini.gini())
    assert torch.allclose(masked.policy_GXK, alone.policy_GXK, atol=1e-5)
    assert masked.credit_G[1].tolist() == [0.0] * 3


def test_a_worst_off_player_with_nothing_to_gain_leaves_the_log_as_it_is():
    # Its return is 0 whatever q, so W = 0 and only KL is left: q = mu, J = 0.
    value, reference, answers, truth = problem(8)
    value[:, 0] = 0
    solution = solve((value, reference, answers, truth), GeneralizedGini.maximin())
    mu = reference.double() / reference.double().sum(-1, keepdim=True)
    assert torch.allclose(solution.policy_GXK, mu, atol=1e-3)
    assert abs(solution.objective) < 1e-6


def test_an_uncertified_saddle_point_is_an_error(monkeypatch):
    monkeypatch.setattr("trialign_ray.targets.MAX_ITERATIONS", 3)
    with pytest.raises(ConvergenceError, match="certified to a gap"):
        solve(problem(9, 2, 12), GeneralizedGini.maximin(), penalty_weight=4.0)
