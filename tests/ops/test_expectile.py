"""Known answers of implicit Q-learning and advantage weights, each derived beside it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trialign_ray.errors import ConfigError, ShapeError
from trialign_ray.ops.expectile import (
    clipped_double_q,
    exp_weights,
    expectile,
    expectile_loss,
    polyak_update,
    td_target,
)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


UNIFORM = vector(0.5, 0.5)
outcomes = st.lists(st.tuples(st.floats(-5, 5), st.floats(0.01, 1)), min_size=1, max_size=7).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64).T
)
quick = settings(max_examples=60, deadline=None)


def test_expectile_of_a_coin_of_one_third():
    # tau p (1 - m) = (1 - tau) (1 - p) m: .9 (1 - m) / 3 = .1 m 2/3, so m = .3 / (.3 + .0667)
    coin, chance = vector(0.0, 1.0), vector(2 / 3, 1 / 3)
    assert float(expectile(coin, chance, 0.9)) == pytest.approx(0.818182, abs=1e-6)
    assert float(expectile(coin, chance, 0.5)) == pytest.approx(1 / 3)
    # tau = .1: m = (.1 / 3) / (.1 / 3 + .9 * 2/3) = 1 / 19
    assert float(expectile(coin, chance, 0.1)) == pytest.approx(1 / 19)


@quick
@given(xw=outcomes, tau=st.floats(0.02, 0.98))
def test_expectile_is_scipys(xw, tau):
    x, w = xw
    expected = stats.expectile(x.numpy(), alpha=tau, weights=w.numpy())
    assert float(expectile(x, w, tau)) == pytest.approx(expected, abs=1e-7)


@quick
@given(xw=outcomes, tau=st.floats(0.02, 0.98))
def test_at_the_expectile_the_loss_has_no_slope(xw, tau):
    x, w = xw
    m = expectile(x, w, tau).requires_grad_(True)
    terms = [share * expectile_loss(value - m, tau) for value, share in zip(x, w, strict=True)]
    (slope,) = torch.autograd.grad(torch.stack(terms).sum(), m)
    assert float(slope) == pytest.approx(0.0, abs=1e-9)


@quick
@given(xw=outcomes, c=st.floats(-3, 3), scale=st.floats(0.1, 10))
def test_expectile_moves_with_its_outcomes_and_grows_with_tau(xw, c, scale):
    x, w = xw
    low, middle, high = (float(expectile(x, w, tau)) for tau in (0.2, 0.5, 0.9))
    assert low <= middle + 1e-12 and middle <= high + 1e-12
    assert middle == pytest.approx(float((x * w).sum() / w.sum()), abs=1e-9)
    moved = float(expectile(scale * x + c, w, 0.9))
    assert moved == pytest.approx(scale * high + c, abs=1e-8)
    assert float(expectile(-x, w, 0.1)) == pytest.approx(-high, abs=1e-9)
    assert float(expectile(x.flip(0), w.flip(0), 0.9)) == pytest.approx(high, abs=1e-9)


def test_expectiles_of_a_batch_are_taken_row_by_row():
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = [[float(expectile(r, r.abs(), 0.7)) for r in block] for block in x]
    assert expectile(x, x.abs(), 0.7).tolist() == [pytest.approx(row) for row in rows]


def test_expectile_loss_weighs_the_sign_of_the_error():
    # tau = .7: (.7 * 2^2 + .3 * 1^2) / 2 = 1.55
    assert float(expectile_loss(vector(2.0, -1.0), 0.7)) == pytest.approx(1.55)
    # tau = .5 is half the mean squared error: 5 / 2 / 2
    assert float(expectile_loss(vector(2.0, -1.0), 0.5)) == pytest.approx(1.25)


# Two states. s0: a0 -> s1 with r = 0, a1 -> end with r = .6. s1: a0 -> end with r = 1, a1 -> end
# with r = 0. The log is uniform over actions and gamma is 1.
REWARD_SA = torch.tensor([[0.0, 0.6], [1.0, 0.0]], dtype=torch.float64)
TERMINATED_SA = torch.tensor([[False, True], [True, True]])


def solve_two_states(tau):
    """(V, Q) at the fixed point of Q = r + V(s') and V = expectile of Q over the log's actions."""
    value_S = torch.zeros(2, dtype=torch.float64)
    q_SA = REWARD_SA
    for _ in range(4):
        next_SA = torch.stack([value_S[1].expand(2), torch.full((2,), math.nan)])
        q_SA = td_target(REWARD_SA, TERMINATED_SA, next_SA, 1.0)
        value_S = expectile(q_SA, UNIFORM.expand(2, 2), tau)
    return value_S, q_SA


@pytest.mark.parametrize(("tau", "start"), [(0.7, 0.67), (0.9, 0.87)])
def test_values_of_the_two_state_process(tau, start):
    # V(s1), the expectile of {0, 1}: tau (1 - m) = (1 - tau) m, so m = tau. V(s0), the expectile
    # of {tau, .6}, tau > .6: tau (tau - m) = (1 - tau) (m - .6), m = tau^2 + .6 (1 - tau):
    # .49 + .18 = .67; .81 + .06 = .87.
    value_S, _ = solve_two_states(tau)
    assert value_S.tolist() == pytest.approx([start, tau], abs=1e-12)


@pytest.mark.parametrize("tau", [0.3, 0.5, 0.59, 0.599999, 0.600001, 0.61, 0.7, 0.9])
def test_the_greedy_action_turns_exactly_above_tau_six_tenths(tau):
    # Q(s0, a0) = V(s1) = tau against Q(s0, a1) = .6
    _, q_SA = solve_two_states(tau)
    assert bool(q_SA[0, 0] > q_SA[0, 1]) == (tau > 0.6)


def test_regression_on_logged_returns_prefers_the_sure_end():
    # The log leaves s1 with 1 or 0, so the mean return after a0 is .5 < .6: the log's habit at s1
    # hides that a0 leads to 1.
    after_a0 = float(expectile(REWARD_SA[1], UNIFORM, 0.5))
    assert after_a0 == pytest.approx(0.5) and after_a0 < float(REWARD_SA[0, 1])


def test_gradient_descent_on_the_loss_finds_the_exact_values():
    value_S = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([value_S], lr=1.0)
    for _ in range(80):
        next_SA = torch.stack([value_S[1].expand(2), torch.zeros(2)])
        q_SA = td_target(REWARD_SA, TERMINATED_SA, next_SA, 1.0)
        optimizer.zero_grad()
        expectile_loss(q_SA - value_S.unsqueeze(-1), 0.7).backward()
        optimizer.step()
    assert value_S.tolist() == pytest.approx([0.67, 0.7], abs=1e-6)


def test_a_cut_dialogue_is_bootstrapped_and_an_ended_one_is_not():
    # 1 + .9 * 5 = 5.5 where the turn limit cut it off; 1 where it ended
    reward, next_value = vector(1.0, 1.0), vector(5.0, math.nan)
    target = td_target(reward, torch.tensor([False, True]), next_value, 0.9)
    assert target.tolist() == pytest.approx([5.5, 1.0])


def test_no_gradient_flows_into_a_target_or_a_weight():
    online = vector(1.0, 2.0).requires_grad_(True)
    ended = torch.tensor([False, True])
    assert not td_target(online, ended, online, 1.0).requires_grad
    assert not exp_weights(online, 1.0, 20.0).requires_grad
    updated = polyak_update({"w": online}, {"w": online * 2})["w"]
    assert not updated.requires_grad


def test_of_two_critics_the_lower_counts():
    assert clipped_double_q(vector(1.0, 3.0), vector(2.0, -1.0)).tolist() == [1.0, -1.0]


def test_polyak_keeps_most_of_the_old_and_writes_nothing_in_place():
    # .995 * 1 + .005 * 3 = 1.01; after n steps the distance is .995^n of the first
    target, online = {"w": vector(1.0)}, {"w": vector(3.0)}
    updated = polyak_update(target, online)
    assert updated["w"].tolist() == pytest.approx([1.01])
    assert target["w"].tolist() == [1.0] and online["w"].tolist() == [3.0]
    for _ in range(199):
        updated = polyak_update(updated, online)
    assert float(3 - updated["w"]) == pytest.approx(2 * 0.995**200)
    assert polyak_update(target, online, 1.0)["w"].tolist() == [3.0]


@pytest.mark.parametrize(
    ("temperature", "expected"),
    # e / (e + 1) = .731059; e^2 / (e^2 + 1) = .880797
    [(1.0, (0.731059, 0.268941)), (0.5, (0.880797, 0.119203))],
)
def test_advantage_weighted_cloning_has_its_closed_form(temperature, expected):
    q, mu = vector(1.0, 0.0), UNIFORM
    weights = mu * exp_weights(q - (mu * q).sum(), temperature, 20.0)
    assert (weights / weights.sum()).tolist() == pytest.approx(expected, abs=1e-6)
    logits = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        (-(weights * logits.log_softmax(-1)).sum()).backward()
        optimizer.step()
    assert logits.softmax(-1).tolist() == pytest.approx(expected, abs=1e-6)


def test_weights_are_cut_off_and_never_overflow():
    weights = exp_weights(vector(0.0, 1.0, 1e6, -1e6), 0.1, 20.0)
    assert weights.tolist() == pytest.approx([1.0, 20.0, 20.0, 0.0])


def test_wrong_settings_and_shapes_are_refused():
    with pytest.raises(ConfigError, match="expectile tau"):
        expectile_loss(UNIFORM, 1.0)
    with pytest.raises(ShapeError, match="one weight per value"):
        expectile(UNIFORM, vector(1.0), 0.5)
    with pytest.raises(ConfigError, match="positive for some outcome"):
        expectile(UNIFORM, vector(0.0, 0.0), 0.5)
    with pytest.raises(ShapeError, match="expected one shape"):
        td_target(UNIFORM, torch.tensor([True]), UNIFORM, 1.0)
    with pytest.raises(ConfigError, match="discount"):
        td_target(UNIFORM, torch.tensor([True, True]), UNIFORM, 1.5)
    with pytest.raises(ConfigError, match="temperature is 0"):
        exp_weights(UNIFORM, 0.0, 20.0)
    with pytest.raises(ConfigError, match="polyak rate"):
        polyak_update({}, {}, 2.0)
    with pytest.raises(ShapeError, match="same names"):
        polyak_update({"a": UNIFORM}, {"b": UNIFORM})
