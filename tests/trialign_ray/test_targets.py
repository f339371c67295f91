"""The central problem: closed forms, certificates, absent groups, refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from trialign_ray.errors import ConfigError, ConvergenceError, DataError, ShapeError
from trialign_ray.ops.inconsistency import excess_disagreement, generalized_jsd
from trialign_ray.ops.welfare import LogNash, PowerMean
from trialign_ray.targets import solve_central

VALUE = torch.tensor([[[1.0, 0.0]], [[0.2, 0.0]]])
UNIFORM = torch.full((2, 1, 2), 0.5)
ANSWERS = torch.tensor([[[0, 1]], [[0, 1]]])
TRUTH = torch.tensor([True])


def solve(value=VALUE, reference=UNIFORM, answers=ANSWERS, truth=TRUTH, **options):
    defaults = {
        "welfare": LogNash(),
        "penalty": generalized_jsd,
        "penalty_weight": 0.0,
        "kl_weight": 1.0,
        "tol": 1e-12,
    }
    return solve_central(value, reference, answers, truth, **(defaults | options))


def random_problem(seed, num_groups=3, num_questions=5, num_candidates=4):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_groups, num_questions, num_candidates)
    value, reference = (torch.rand(shape, generator=generator) for _ in range(2))
    answers = torch.randint(0, 3, shape, generator=generator)
    return value, reference + 0.05, answers, torch.ones(num_questions, dtype=torch.bool)


def test_utilitarian_groups_follow_their_own_reward():
    # W = (U_1 + U_2) / 2, so q = sigmoid(r / beta): sigmoid(1), sigmoid(.2)
    policy = solve(welfare=PowerMean(1)).policy_GXK[:, 0, 0]
    assert policy.tolist() == pytest.approx([0.731059, 0.549834], abs=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_log_nash_serves_both_alike_whatever_the_scale(scale):
    # With W = sum w log U the credit is w / U, so x = sigmoid(1 / x) for both: .782188.
    fixed_point = brentq(lambda x: x - 1 / (1 + torch.exp(torch.tensor(-1 / x)).item()), 0.5, 1)
    policy = solve(VALUE * torch.tensor([[[1.0]], [[scale]]])).policy_GXK[:, 0, 0]
    assert fixed_point == pytest.approx(0.782188, abs=1e-6)
    assert policy.tolist() == pytest.approx([fixed_point] * 2, abs=1e-6)


@pytest.mark.parametrize("kl_weight", [0.1, 1.0, 10.0])
def test_one_shared_policy_between_opposed_groups_is_split_evenly(kl_weight):
    # One policy with payoffs (10, 0) to A and (0, 1) to B: one group with two objectives.
    value = torch.tensor([[[[10.0, 0.0]]], [[[0.0, 1.0]]]])
    policy = solve(value, UNIFORM[:1], ANSWERS[:1], kl_weight=kl_weight).policy_GXK
    assert policy[0, 0].tolist() == pytest.approx([0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize("welfare", [LogNash(), PowerMean(1), PowerMean(-1)], ids=str)
def test_without_penalty_targets_have_the_closed_form(welfare):
    value, reference, answers, truth = random_problem(0)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    solution = solve(
        value, reference, answers, truth, welfare=welfare, kl_weight=0.3, weights_G=weights
    )
    tilt = (solution.credit_G / (0.3 * weights)).reshape(-1, 1, 1) * value.double()
    expected = reference.double() * torch.exp(tilt)
    expected = expected / expected.sum(-1, keepdim=True)
    assert torch.allclose(solution.policy_GXK, expected, atol=1e-6)


def test_a_single_group_is_exponentially_weighted_cloning():
    value, reference, answers, truth = random_problem(1, num_groups=1)
    policy = solve(
        value, reference, answers, truth, welfare=PowerMean(1), penalty_weight=3.0, kl_weight=0.5
    ).policy_GXK
    expected = reference.double() * torch.exp(value.double() / 0.5)
    assert torch.allclose(policy, expected / expected.sum(-1, keepdim=True), atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    penalty=st.sampled_from([generalized_jsd, excess_disagreement]),
    penalty_weight=st.sampled_from([0.0, 0.3, 1.0, 4.0, 30.0]),
    kl_weight=st.sampled_from([0.01, 0.1, 1.0]),
)
def test_no_other_policy_beats_the_certificate(seed, penalty, penalty_weight, kl_weight):
    value, reference, answers, truth = random_problem(seed)
    solution = solve(
        value,
        reference,
        answers,
        truth,
        penalty=penalty,
        tol=1e-4,
        penalty_weight=penalty_weight,
        kl_weight=kl_weight,
    )
    assert solution.gap <= 1e-4 * abs(solution.objective)
    q = solution.policy_GXK
    mu = reference.double() / reference.double().sum(-1, keepdim=True)
    generator = torch.Generator().manual_seed(seed)
    for size in (0.01, 0.3, 1.0):
        noise = torch.randn(q.shape, generator=generator, dtype=torch.float64)
        other = (q.clamp_min(1e-300).log() + size * noise).softmax(-1)
        rival = naive_objective(other, value, mu, answers, penalty, penalty_weight, kl_weight)
        assert rival <= solution.objective + solution.gap + 1e-9


def naive_objective(q, value, mu, answers, penalty, penalty_weight, kl_weight):
    """J(q), loop by loop from its definition; equal weights, LogNash."""
    num_groups, num_questions, num_candidates = q.shape
    utility = [float((q[g] * value[g]).sum()) / num_questions for g in range(num_groups)]
    welfare = float(LogNash().value(torch.tensor(utility, dtype=torch.float64)))
    divergence = 0.0
    for x in range(num_questions):
        p = torch.zeros(num_groups, 3, dtype=torch.float64)
        for g in range(num_groups):
            for k in range(num_candidates):
                p[g, answers[g, x, k]] += q[g, x, k]
        divergence += float(penalty(p)) / num_questions
    kl = float((q * (q.clamp_min(1e-300) / mu).log()).sum()) / (num_groups * num_questions)
    return welfare - penalty_weight * divergence - kl_weight * kl


def test_a_heavier_penalty_brings_answers_together():
    problem = random_problem(2)
    found = [
        solve(*problem, penalty_weight=w, kl_weight=0.1, tol=1e-5).inconsistency
        for w in (0.0, 0.3, 1.0, 4.0)
    ]
    assert found == sorted(found, reverse=True) and found[-1] < found[0] / 2


def test_an_absent_group_changes_nothing_for_the_others():
    value, reference, answers, truth = random_problem(3)
    mask = torch.ones_like(value, dtype=torch.bool)
    mask[2] = False
    whole = solve(value, reference, answers, truth, candidate_mask_GXK=mask, penalty_weight=1.0)
    pair = solve(value[:2], reference[:2], answers[:2], truth, penalty_weight=1.0)
    assert torch.allclose(whole.policy_GXK[:2], pair.policy_GXK, atol=1e-6)
    assert float(whole.policy_GXK[2].abs().max()) == 0.0 and float(whole.credit_G[2]) == 0.0


def test_order_of_groups_does_not_matter():
    value, reference, answers, truth = random_problem(4)
    one = solve(value, reference, answers, truth, penalty_weight=1.0, tol=1e-9)
    other = solve(
        value.flip(0), reference.flip(0), answers.flip(0), truth, penalty_weight=1.0, tol=1e-9
    )
    assert torch.allclose(one.policy_GXK, other.policy_GXK.flip(0), atol=1e-5)


def test_penalty_looks_at_truth_questions_alone():
    value, reference, answers, _ = random_problem(5)
    taste = torch.zeros(5, dtype=torch.bool)
    free = solve(value, reference, answers, taste, penalty_weight=0.0)
    taxed = solve(value, reference, answers, taste, penalty_weight=9.0)
    assert torch.allclose(free.policy_GXK, taxed.policy_GXK) and taxed.inconsistency == 0.0


def test_equal_returns_leave_the_log_as_it_is():
    _, reference, answers, truth = random_problem(6)
    policy = solve(torch.full_like(reference, 0.5), reference, answers, truth).policy_GXK
    mu = reference.double() / reference.double().sum(-1, keepdim=True)
    assert torch.allclose(policy, mu, atol=1e-9)


def test_a_small_kl_weight_does_not_underflow_into_nonsense():
    problem = random_problem(7)
    solution = solve(*problem, penalty_weight=4.0, kl_weight=1e-3, tol=1e-3)
    assert torch.isfinite(solution.policy_GXK).all()


@pytest.mark.parametrize("welfare", [LogNash(), PowerMean(-1), PowerMean(-8)], ids=str)
def test_a_player_of_unknown_returns_is_masked_and_not_counted_as_zero(welfare):
    value, reference, answers, truth = random_problem(9)
    both = torch.stack([value, torch.zeros_like(value)])
    present = torch.tensor([[True] * 3, [False] * 3])
    masked = solve(both, reference, answers, truth, welfare=welfare, player_present_JG=present)
    alone = solve(value, reference, answers, truth, welfare=welfare)
    assert torch.allclose(masked.policy_GXK, alone.policy_GXK, atol=1e-6)
    assert masked.credit_G[1].tolist() == [0.0] * 3


def test_a_power_mean_without_a_certificate_says_so():
    with pytest.raises(ConvergenceError, match="log_nash"):
        solve(VALUE * torch.tensor([[[1.0]], [[0.001]]]), welfare=PowerMean(-1), kl_weight=0.1)


def test_wrong_input_is_refused():
    with pytest.raises(ConfigError, match="kl_weight > 0"):
        solve(kl_weight=0.0)
    with pytest.raises(ConfigError, match="penalty_weight"):
        solve(penalty_weight=-1.0)
    with pytest.raises(ConfigError, match="weights"):
        solve(weights_G=torch.tensor([-1.0, 1.0]))
    with pytest.raises(ShapeError, match="expected"):
        solve(value=VALUE[:, :, :1])
    with pytest.raises(DataError, match="NaN"):
        solve(value=VALUE * float("nan"))
    with pytest.raises(DataError, match="no candidate of any group"):
        solve(candidate_mask_GXK=torch.zeros(2, 1, 2, dtype=torch.bool))
    with pytest.raises(DataError, match="positive sum"):
        solve(reference=torch.zeros(2, 1, 2))


def test_an_uncertified_solution_is_an_error(monkeypatch):
    monkeypatch.setattr("trialign_ray.targets.MAX_ITERATIONS", 1)
    with pytest.raises(ConvergenceError, match="certified to a gap"):
        solve(*random_problem(8), penalty_weight=4.0, kl_weight=0.1)
