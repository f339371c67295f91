"""Off-policy estimators on logs small enough to do by hand or to enumerate."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trialign_ray.errors import ConfigError, ConvergenceError, DataError, ShapeError
from trialign_ray.ops.off_policy import (
    direct_method,
    doubly_robust,
    effective_sample_size,
    fitted_q_evaluation,
    importance_sampling,
    importance_weights,
    self_normalized,
)

# The bandit: mu = (.5, .5), pi = (.8, .2), so w = 1.6 for action 0 and .4 for action 1.
MU, PI, Q_HAT = np.array([0.5, 0.5]), np.array([0.8, 0.2]), np.array([0.6, 0.3])
ACTION = np.array([0, 0, 1, 1])
REWARD = np.array([1.0, 0.0, 0.0, 1.0])
VALUE = np.full(4, PI @ Q_HAT)


def weights_of(action, new=PI, old=MU):
    return importance_weights(np.log(new)[action], np.log(old)[action]).weight_NT


def test_the_bandit_has_its_known_answers():
    w = weights_of(ACTION)
    assert w == pytest.approx([1.6, 1.6, 0.4, 0.4])
    assert importance_sampling(w, REWARD) == pytest.approx(0.5)  # (1.6 * 1 + .4 * 1) / 4
    assert self_normalized(w, REWARD) == pytest.approx(0.5)  # (1.6 + .4) / (1.6 + 1.6 + .4 + .4)
    assert direct_method(VALUE) == pytest.approx(0.54)  # .8 * .6 + .2 * .3
    # .54 + (1.6 * (1 - .6) + 1.6 * (0 - .6) + .4 * (0 - .3) + .4 * (1 - .3)) / 4 = .54 - .16 / 4
    assert doubly_robust(w, REWARD, Q_HAT[ACTION], VALUE) == pytest.approx(0.5)
    # (1.6 + 1.6 + .4 + .4)^2 / (2 * 2.56 + 2 * .16) = 16 / 5.44
    assert effective_sample_size(w) == pytest.approx(2.941176, abs=1e-6)


def test_the_behaviour_policy_itself_earns_the_sample_mean():
    w = weights_of(ACTION, new=MU)
    assert importance_sampling(w, REWARD) == self_normalized(w, REWARD) == 0.5
    assert effective_sample_size(w) == 4.0
    values = np.full(4, MU @ Q_HAT)  # the critic's error cancels only on average: 2 of each action
    assert doubly_robust(w, REWARD, Q_HAT[ACTION], values) == pytest.approx(0.5)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20), st.floats(-3, 3))
def test_a_constant_reward_is_its_own_self_normalized_estimate(log_ratio, constant):
    w = importance_weights(np.array(log_ratio), np.zeros(len(log_ratio))).weight_NT
    assert self_normalized(w, np.full(len(w), constant)) == pytest.approx(constant, abs=1e-9)


def test_with_the_exact_q_the_doubly_robust_estimate_is_the_direct_one():
    q = np.array([0.7, 0.1])
    w = weights_of(ACTION, new=np.array([0.999, 0.001]))
    reward, value = q[ACTION], np.full(4, 0.35)
    assert doubly_robust(w, reward, q[ACTION], value) == pytest.approx(direct_method(value))


def test_the_sample_size_knows_no_scale_and_no_overflow():
    assert effective_sample_size(np.array([1e200, 1e200, 0.0])) == pytest.approx(2.0)
    assert effective_sample_size(np.zeros(3)) == 0.0


# Two turns, two actions each; the second turn's policies depend on the first action.
MU_1, PI_1 = np.array([0.4, 0.6]), np.array([0.7, 0.3])
MU_2 = np.array([[0.5, 0.5], [0.2, 0.8]])
PI_2 = np.array([[0.9, 0.1], [0.6, 0.4]])
R_1, R_2 = np.array([1.0, 0.0]), np.array([[0.0, 2.0], [3.0, 1.0]])
DISCOUNT = 0.5
PATHS = np.array(list(itertools.product((0, 1), (0, 1))))
FIRST, SECOND = PATHS.T
CHANCE = MU_1[FIRST] * MU_2[FIRST, SECOND]
TWO_TURN_W = importance_weights(
    np.log(np.stack([PI_1[FIRST], PI_2[FIRST, SECOND]], 1)),
    np.log(np.stack([MU_1[FIRST], MU_2[FIRST, SECOND]], 1)),
).weight_NT
TWO_TURN_R = np.stack([R_1[FIRST], R_2[FIRST, SECOND]], 1)
TRUE_VALUE = sum(
    PI_1[a] * (R_1[a] + DISCOUNT * sum(PI_2[a, b] * R_2[a, b] for b in (0, 1))) for a in (0, 1)
)


def expected_over_logs(estimator):
    """The estimator's mean over every log of two episodes, each with its probability."""
    total = 0.0
    for pair in itertools.product(range(4), repeat=2):
        index = np.array(pair)
        total += CHANCE[index].prod() * estimator(index)
    return total


def test_importance_sampling_is_unbiased_over_two_turns():
    # .7 (1 + .5 * .9 * 0 + .5 * .1 * 2) + .3 (0 + .5 * (.6 * 3 + .4 * 1)) = .77 + .33
    assert pytest.approx(1.1) == TRUE_VALUE
    mean = expected_over_logs(lambda i: importance_sampling(TWO_TURN_W[i], TWO_TURN_R[i], DISCOUNT))
    assert mean == pytest.approx(TRUE_VALUE)


def test_the_doubly_robust_estimate_is_unbiased_for_a_wrong_critic():
    q_1, q_2 = np.array([5.0, -1.0]), np.array([[0.3, 1.0], [2.0, -4.0]])
    q = np.stack([q_1[FIRST], q_2[FIRST, SECOND]], 1)
    value = np.stack([np.full(4, PI_1 @ q_1), (PI_2 * q_2).sum(1)[FIRST]], 1)
    mean = expected_over_logs(
        lambda i: doubly_robust(TWO_TURN_W[i], TWO_TURN_R[i], q[i], value[i], DISCOUNT)
    )
    assert mean == pytest.approx(TRUE_VALUE)
    assert direct_method(value) != pytest.approx(TRUE_VALUE)


def test_the_self_normalized_estimate_is_biased_on_short_logs():
    mean = expected_over_logs(lambda i: self_normalized(TWO_TURN_W[i], TWO_TURN_R[i], DISCOUNT))
    assert abs(mean - TRUE_VALUE) > 0.01


def test_turns_follow_the_naive_loops():
    w, r = TWO_TURN_W, TWO_TURN_R
    q, value = np.sin(r + 1), np.cos(r)
    naive_is = naive_dr = 0.0
    for n in range(4):
        before = 1.0
        for t in range(2):
            naive_is += DISCOUNT**t * w[n, t] * r[n, t] / 4
            naive_dr += DISCOUNT**t * (w[n, t] * r[n, t] - (w[n, t] * q[n, t])) / 4
            naive_dr += DISCOUNT**t * before * value[n, t] / 4
            before = w[n, t]
    assert importance_sampling(w, r, DISCOUNT) == pytest.approx(naive_is)
    assert doubly_robust(w, r, q, value, DISCOUNT) == pytest.approx(naive_dr)
    naive_wis = sum(
        DISCOUNT**t * sum(w[n, t] * r[n, t] for n in range(4)) / sum(w[n, t] for n in range(4))
        for t in range(2)
    )
    assert self_normalized(w, r, DISCOUNT) == pytest.approx(naive_wis)


def test_weights_are_carried_past_the_end_of_an_episode():
    new, old = np.log([[0.8, 1.0], [0.8, 0.25]]), np.log([[0.5, 1.0], [0.5, 0.5]])
    assert importance_weights(new, old).weight_NT == pytest.approx(
        np.array([[1.6, 1.6], [1.6, 0.8]])
    )


def test_clipping_happens_only_on_demand_and_is_counted():
    new, old = np.log([0.8, 0.8, 0.2]), np.log([0.5, 0.1, 0.5])
    assert importance_weights(new, old).num_clipped == 0
    clipped = importance_weights(new, old, max_weight=2.0)
    assert clipped.weight_NT == pytest.approx([1.6, 2.0, 0.4]) and clipped.num_clipped == 1


def test_a_policy_that_takes_no_logged_action_has_no_estimate():
    w = importance_weights(np.array([-np.inf, -np.inf]), np.log([0.5, 0.5])).weight_NT
    assert effective_sample_size(w) == 0.0 and math.isnan(self_normalized(w, np.ones(2)))


def test_impossible_log_probabilities_are_refused():
    with pytest.raises(DataError, match="behaviour"):
        importance_weights(np.array([-1.0]), np.array([-np.inf]))
    with pytest.raises(DataError, match="800"):
        importance_weights(np.array([-1.0]), np.array([-801.0]))
    with pytest.raises(ShapeError, match="expected one shape"):
        importance_weights(np.zeros(2), np.zeros(3))
    with pytest.raises(ConfigError, match="max_weight"):
        importance_weights(np.zeros(2), np.zeros(2), max_weight=0.0)


# The two-state MDP, discount 1, one-hot features in the order (s0,a0), (s0,a1), (s1,a0), (s1,a1).
# s0: a0 -> s1, reward 0; a1 -> end, .6.  s1: a0 -> end, 1; a1 -> end, 0.
PHI = np.eye(4)
MDP_REWARD = np.array([0.0, 0.6, 1.0, 0.0])
ENDS = np.array([False, True, True, True])


def following(first, second):
    """Averaged features of the next state under pi(a0|s0) = first, pi(a0|s1) = second."""
    rows = np.zeros((4, 4))
    rows[0] = [0.0, 0.0, second, 1 - second]
    rows[1:] = [first, 1 - first, 0.0, 0.0]  # after an end: must not count
    return rows


def test_fitted_q_evaluates_a_fixed_policy_of_the_two_state_mdp():
    # Q(s1,.) = (1, 0), V(s1) = .7; Q(s0,.) = (.7, .6), V(s0) = .5 * .7 + .5 * .6 = .65
    fitted = fitted_q_evaluation(PHI, MDP_REWARD, following(0.5, 0.7), ENDS, ridge=1e-12)
    assert fitted.weight_D == pytest.approx([0.7, 0.6, 1.0, 0.0], abs=1e-9)
    assert fitted.value(np.array([[0.5, 0.5, 0.0, 0.0]])) == pytest.approx([0.65], abs=1e-9)
    assert fitted.num_iterations == 3  # two turns, and one more to see that it stands


def test_fitted_q_averages_noise_and_discounts():
    # s1 a0 pays 1 twice and 0 twice: Q = .5. With discount .8: Q(s0,a0) = .8 * .5.
    rows = np.array([0, 1, 2, 2, 2, 2, 3])
    reward = np.array([0.0, 0.6, 1.0, 1.0, 0.0, 0.0, 0.0])
    fitted = fitted_q_evaluation(
        PHI[rows], reward, following(0.5, 1.0)[rows], ENDS[rows], discount=0.8, ridge=1e-12
    )
    assert fitted.weight_D == pytest.approx([0.4, 0.6, 0.5, 0.0], abs=1e-9)


def test_fitted_q_of_one_turn_is_ridge_regression():
    # Two equal rows with rewards 1 and 1, ridge 2: w = (1 + 1) / (2 + 2)
    fitted = fitted_q_evaluation(
        np.ones((2, 1)), np.ones(2), np.ones((2, 1)), np.array([True, True]), ridge=2.0
    )
    assert fitted.weight_D == pytest.approx([0.5])


def test_unseen_actions_are_worth_nothing_not_something_random():
    seen = np.array([1, 2])
    fitted = fitted_q_evaluation(
        PHI[seen], MDP_REWARD[seen], following(1.0, 1.0)[seen], ENDS[seen], ridge=1e-9
    )
    assert fitted.weight_D == pytest.approx([0.0, 0.6, 1.0, 0.0], abs=1e-6)


def test_fitted_q_and_doubly_robust_agree_with_the_truth_on_two_turns():
    # The whole tree as transitions: features (a1) for turn one, (a1, a2) for turn two.
    phi = np.concatenate([np.eye(6)[FIRST], np.eye(6)[2 + 2 * FIRST + SECOND]])
    upcoming = np.zeros((8, 6))
    for row, a in enumerate(FIRST):
        upcoming[row, 2 + 2 * a : 4 + 2 * a] = PI_2[a]
    reward, ends = np.concatenate([TWO_TURN_R[:, 0], TWO_TURN_R[:, 1]]), np.arange(8) >= 4
    fitted = fitted_q_evaluation(phi, reward, upcoming, ends, discount=DISCOUNT, ridge=1e-12)
    assert fitted.value(np.array([[*PI_1, 0, 0, 0, 0]])) == pytest.approx([TRUE_VALUE])
    q = fitted.value(phi).reshape(2, 4).T
    value = np.stack([np.full(4, TRUE_VALUE), fitted.value(upcoming[:4])], 1)
    assert doubly_robust(TWO_TURN_W, TWO_TURN_R, q, value, DISCOUNT) == pytest.approx(TRUE_VALUE)


def test_a_diverging_iteration_is_an_error_not_a_number():
    # Tsitsiklis and Van Roy 1996: phi = 1 leads to phi = 2 for ever, so w <- 2 w + 1.
    one, two = np.ones((1, 1)), np.full((1, 1), 2.0)
    with pytest.raises(ConvergenceError, match="discount"):
        fitted_q_evaluation(one, np.ones(1), two, np.array([False]), max_iterations=5000)
    with pytest.raises(ConfigError, match="ridge"):
        fitted_q_evaluation(one, np.ones(1), two, np.array([True]), ridge=0.0)
    with pytest.raises(ShapeError, match="one row per transition"):
        fitted_q_evaluation(one, np.ones(2), two, np.array([True]))
