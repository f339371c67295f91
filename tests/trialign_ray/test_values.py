"""Implicit Q-learning: the known MDP, ends and cuts, whose future counts, symmetry."""

from dataclasses import replace

import pytest
import torch

from trialign_ray.errors import ConfigError, DataError, ShapeError
from trialign_ray.values import (
    Transitions,
    ValueConfig,
    continuation_target,
    credit_matrix,
    fit_values,
    value_loss,
)

TABULAR = ValueConfig(
    discount=1.0, steps=500, hidden=16, learning_rate=1e-2, batch_size=8, polyak=0.1
)
# s0: a0 -> s1 with r 0, a1 -> end with r .6;  s1: a0 -> end with r 1, a1 -> end with r 0.
STATE, ACTION = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
REWARD = torch.tensor([0.0, 0.6, 1.0, 0.0])
ENDS = torch.tensor([False, True, True, True])


def two_state_mdp(reward=REWARD, ends=ENDS):
    """One group; one-hot states, one-hot (state, action)."""
    states, pairs = torch.eye(2), torch.eye(4)
    following = states[torch.tensor([1, 0, 0, 0])]
    return Transitions(
        states[STATE].unsqueeze(1),
        pairs[2 * STATE + ACTION].unsqueeze(1),
        reward.unsqueeze(1),
        following.unsqueeze(1),
        ends.unsqueeze(1),
    )


def learned(transitions, config):
    values = fit_values(transitions, config, 0)
    v = values.v(torch.eye(2).unsqueeze(1)).squeeze(-1)
    q = values.q(transitions.state_NGS, transitions.action_NGA, transitions.reward_NG).squeeze(-1)
    return v, q


@pytest.mark.parametrize(("tau", "start"), [(0.5, 0.55), (0.7, 0.67), (0.9, 0.87)])
def test_the_two_state_mdp_has_its_known_values(tau, start):
    # V(s1) = tau-expectile of {1, 0} = tau. V(s0) = that of {tau, .6} = tau max + (1 - tau) min:
    # .7 * .7 + .3 * .6 = .67, .9 * .9 + .1 * .6 = .87, and at .5 the mean of .5 and .6.
    v, q = learned(two_state_mdp(), replace(TABULAR, expectile=tau))
    assert v.tolist() == pytest.approx([start, tau], abs=0.01)
    # a0 at s0 leads to V(s1) = tau, a1 gives .6: a0 is greedy exactly above tau = .6
    assert q[:2].tolist() == pytest.approx([tau, 0.6], abs=0.01)
    assert (q[0] > q[1]) == (tau > 0.6)


def test_regression_on_returns_prefers_the_safe_action():
    # Behind (s0, a0) lies 1 or 0 with equal odds: return .5 < .6.
    returns = torch.tensor([0.5, 0.6, 1.0, 0.0])
    _, q = learned(two_state_mdp(reward=returns), replace(TABULAR, discount=0.0))
    assert q.argmax() != 0 and q[1] > q[0]


def test_what_is_cut_off_is_bootstrapped_and_what_has_ended_is_not():
    # If (s1, a0), reward 1, is merely cut off, s1 goes on: with gamma .5 and tau .5 every value is
    # a mean. The next state stored for it is s0: Q(s1, a0) = 1 + .5 V(s0).
    # V(s0) = (.5 V(s1) + .6) / 2, V(s1) = (1 + .5 V(s0) + 0) / 2, so V(s0) = .3 + .25 V(s1) and
    # V(s1) = .5 + .25 V(s0): V(s1) = .575 / .9375 = .61333, V(s0) = .45333. All ended:
    # V(s1) = .5, V(s0) = .3 + .125.
    config = replace(TABULAR, discount=0.5, expectile=0.5)
    cut = torch.tensor([False, True, False, True])
    v, q = learned(two_state_mdp(ends=cut), config)
    assert v.tolist() == pytest.approx([0.45333, 0.61333], abs=0.01)
    assert float(q[2]) == pytest.approx(1 + 0.5 * 0.45333, abs=0.01)
    v, q = learned(two_state_mdp(), config)
    assert v.tolist() == pytest.approx([0.425, 0.5], abs=0.01)
    assert float(q[2]) == pytest.approx(1.0, abs=0.01)


def test_whose_future_counts_by_hand():
    # Values (1, 2, 4), the last group never speaks again, gamma .5.
    value = torch.tensor([[1.0, 2.0, 4.0]])
    ended = torch.tensor([[False, False, True]])
    own, team, peers = (
        continuation_target(value, ended, 0.5, credit_matrix(c, 3)).squeeze(0).tolist()
        for c in ("own", "team", "peers")
    )
    assert own == pytest.approx([0.5, 1.0, 0.0])
    assert team == pytest.approx([0.5 * 1.5] * 3)
    assert peers == pytest.approx([0.5 * 2, 0.5 * 1, 0.5 * 1.5])


def test_a_lone_group_is_its_own_team():
    assert torch.equal(credit_matrix("team", 1), credit_matrix("own", 1))
    ended = torch.tensor([[False]])
    alone = continuation_target(torch.tensor([[3.0]]), ended, 1.0, credit_matrix("peers", 1))
    assert float(alone) == 0.0


def test_no_gradient_flows_into_targets():
    generator = torch.Generator().manual_seed(0)
    batch = random_transitions(generator, 6, 2)
    v, q, q_target = (torch.nn.Linear(n, 1) for n in (3, 5, 5))

    def one(network):
        return lambda x: network(x).squeeze(-1).unsqueeze(0)

    def two(network):
        return lambda x: torch.stack([network(x).squeeze(-1)] * 2)

    config, credit = ValueConfig(), credit_matrix("team", 2)
    loss = value_loss(batch, one(v), two(q), config, credit, two(q_target))  # type: ignore[arg-type]
    loss.backward()
    assert all(p.grad is None for p in q_target.parameters())
    # V moves towards the target twins alone: frozen Q and next state leave its gradient as it is.
    features = torch.cat([batch.state_NGS, batch.action_NGA], -1)
    best = (batch.reward_NG + q_target(features).squeeze(-1)).detach()
    d = best - v(batch.state_NGS).squeeze(-1)
    by_hand = ((0.7 - (d < 0).float()).abs() * d.square()).mean()
    (expected,) = torch.autograd.grad(by_hand, v.weight)
    assert v.weight.grad is not None and torch.allclose(v.weight.grad, expected, atol=1e-6)


def random_transitions(generator, num, num_groups):
    def drawn(*shape):
        return torch.rand(num, num_groups, *shape, generator=generator)

    return Transitions(drawn(3), drawn(2), drawn(), drawn(3), drawn() < 0.5)


def test_the_same_seed_gives_the_same_values_and_another_seed_others():
    data = random_transitions(torch.Generator().manual_seed(1), 40, 3)
    config = ValueConfig(steps=20, batch_size=16)
    first, again, other = (fit_values(data, config, s).v(data.state_NGS) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("credit", ["own", "team"])
def test_permuting_groups_permutes_their_values(credit):
    data = random_transitions(torch.Generator().manual_seed(2), 40, 3)
    order = torch.tensor([2, 0, 1])
    moved = Transitions(
        data.state_NGS[:, order],
        data.action_NGA[:, order],
        data.reward_NG[:, order],
        data.next_state_NGS[:, order],
        data.terminated_NG[:, order],
    )
    config = ValueConfig(steps=50, batch_size=16, credit=credit)
    here = fit_values(data, config, 0).continuation(data.state_NGS, data.action_NGA)
    there = fit_values(moved, config, 0).continuation(moved.state_NGS, moved.action_NGA)
    assert here.std() > 1e-3
    assert torch.allclose(here[:, order], there, atol=1e-4)


def test_an_unknown_reward_teaches_nothing():
    data = random_transitions(torch.Generator().manual_seed(3), 12, 2)
    reward = data.reward_NG.clone()
    reward[5] = torch.nan
    kept = torch.tensor([n for n in range(12) if n != 5])
    config = ValueConfig(steps=10, batch_size=16)
    masked = fit_values(replace(data, reward_NG=reward), config, 0).v(data.state_NGS)
    assert torch.equal(masked, fit_values(data.take(kept), config, 0).v(data.state_NGS))
    with pytest.raises(DataError, match="no transition has a known reward"):
        fit_values(replace(data, reward_NG=reward * torch.nan), config, 0)


def test_wrong_shapes_and_settings_are_refused():
    data = random_transitions(torch.Generator().manual_seed(0), 4, 2)
    with pytest.raises(ShapeError, match="one entry per joint turn"):
        replace(data, reward_NG=data.reward_NG[:, :1])
    with pytest.raises(ConfigError, match="discount in"):
        ValueConfig(discount=1.5)
    with pytest.raises(ConfigError, match="own, team or peers"):
        credit_matrix("all", 2)  # type: ignore[arg-type]
