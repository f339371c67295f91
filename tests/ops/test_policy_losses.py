"""Losses of policy extraction: numbers by hand, padding, order, and where no gradient flows."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trialign_ray.ops.policy_losses import (
    candidate_kl,
    clipped_ratio,
    direct_reward,
    dpo,
    group_advantages,
    ipo,
    kto,
    listwise,
    weighted_cloning,
)

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def free(*values: float) -> Tensor:
    return row(*values).requires_grad_()


TRUE = torch.tensor(True)


def test_cloning_is_the_weighted_mean_token_log_likelihood():
    # -(.75 * (-4) / 2 + .25 * (-6) / 3) = .75 * 2 + .25 * 2 = 2
    loss = weighted_cloning(row(-4.0, -6.0), row(2.0, 3.0), row(0.75, 0.25))
    assert loss.tolist() == [2.0]


def test_the_gradient_of_cloning_is_minus_weight_over_length():
    logprob = free(-4.0, -6.0)
    weighted_cloning(logprob, row(2.0, 3.0), row(0.75, 0.25)).sum().backward()
    assert logprob.grad is not None
    assert logprob.grad[0].tolist() == pytest.approx([-0.75 / 2, -0.25 / 3])


def test_the_kl_over_candidates_by_hand():
    # softmax(ln 3, 0) = (3/4, 1/4), reference (1/2, 1/2): .75 ln 1.5 + .25 ln .5 = .130812
    kl = candidate_kl(row(LN3, 0.0), row(-7.0, -7.0), torch.ones(1, 2, dtype=torch.bool))
    assert float(kl) == pytest.approx(0.75 * math.log(1.5) - 0.25 * LN2, abs=1e-9)
    assert float(kl) == pytest.approx(0.130812, abs=1e-6)


def test_the_kl_over_candidates_forgets_what_all_share():
    everyone = torch.ones(1, 3, dtype=torch.bool)
    logprob, reference = row(-1.0, -2.0, -5.0), row(-3.0, -3.0, -1.0)
    shifted = candidate_kl(logprob + 9, reference - 4, everyone)
    assert float(shifted) == pytest.approx(float(candidate_kl(logprob, reference, everyone)))
    assert float(candidate_kl(logprob, logprob - 2, everyone)) == pytest.approx(0, abs=1e-12)


def test_listwise_by_hand_is_the_cross_entropy_at_the_start():
    # Log-ratios 0: softmax(log mu) = mu = (3/4, 1/4); q = (1/2, 1/2): -(ln .75 + ln .25) / 2
    loss = listwise(row(0, 0), row(3.0, 1.0), row(0.5, 0.5), torch.ones(1, 2, dtype=torch.bool))
    assert float(loss) == pytest.approx(-0.5 * math.log(0.75 * 0.25))


def test_listwise_is_least_and_flat_where_the_reweighted_reference_is_q():
    # mu e^ratio = q where ratio = log(q / mu), up to a constant; there the loss is H(q).
    target, prior = row(0.5, 0.3, 0.2), row(1.0, 4.0, 2.0)
    everyone = torch.ones(1, 3, dtype=torch.bool)
    ratio = (target / prior).log().add(0.7).requires_grad_()
    loss = listwise(ratio, prior, target, everyone)
    loss.sum().backward()
    assert ratio.grad is not None and float(ratio.grad.abs().max()) < 1e-12
    assert float(loss.detach()) == pytest.approx(float(-(target * target.log()).sum()))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = torch.randn(1, 3, generator=generator, dtype=torch.float64)
        assert float(listwise(other, prior, target, everyone)) >= float(loss.detach())


@pytest.mark.parametrize(
    ("chosen", "rejected", "margin", "expected"),
    [
        (0.0, 0.0, 0.0, LN2),  # at the start
        (2.0, 2.0, 0.0, LN2),  # moving both alike is worth nothing
        (1.0, -1.0, 0.0, math.log(1 + 1 / 3)),  # beta 2 = ln 3: -log(3/4)
        (-1.0, 1.0, 0.0, LN4),  # -log(1/4)
        (1.0, -1.0, LN3, LN2),  # the margin asks for all of it
    ],
)
def test_dpo_by_hand(chosen, rejected, margin, expected):
    loss = dpo(torch.tensor(chosen), torch.tensor(rejected), LN3 / 2, margin)
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_the_gradient_of_dpo_at_the_start_is_half_beta():
    # d/dx -log sigmoid(beta x) = -beta sigmoid(-beta x) = -beta / 2 at x = 0
    chosen, rejected = free(0.0), free(0.0)
    dpo(chosen, rejected, 0.3).sum().backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert float(chosen.grad) == pytest.approx(-0.15) and float(rejected.grad) == pytest.approx(
        0.15
    )


def test_dpo_far_from_the_start_stays_finite():
    assert float(dpo(torch.tensor(-4e3), torch.tensor(4e3), 1.0)) == pytest.approx(8e3)
    assert float(dpo(torch.tensor(4e3), torch.tensor(-4e3), 1.0)) == 0


def test_ipo_is_zero_at_its_optimum_and_squared_around_it():
    # beta .25: optimum at 1 / (2 beta) = 2; a margin of .5 moves it by .5 / .25 = 2.
    assert float(ipo(torch.tensor(3.0), torch.tensor(1.0), 0.25)) == 0
    assert float(ipo(torch.tensor(5.0), torch.tensor(1.0), 0.25, 0.5)) == 0
    assert float(ipo(torch.tensor(0.0), torch.tensor(0.0), 0.25)) == 4
    assert float(ipo(torch.tensor(6.0), torch.tensor(1.0), 0.25)) == 9


def test_kto_is_a_half_at_the_reference_and_falls_the_right_way():
    # beta 1, z 0: desirable at ln 3 is 1 - 3/4, undesirable there 1 - 1/4; z = ln 3 takes it back.
    zero, up = torch.tensor(0.0), torch.tensor(LN3)
    for desirable in (TRUE, ~TRUE):
        assert float(kto(zero, desirable, zero, 1.0)) == 0.5
        assert float(kto(up, desirable, up, 1.0)) == 0.5
    assert float(kto(up, TRUE, zero, 1.0)) == pytest.approx(0.25)
    assert float(kto(up, ~TRUE, zero, 1.0)) == pytest.approx(0.75)


def clipped(ratio: float, advantage: float) -> tuple[float, float]:
    """Loss of one answer of two tokens at sequence ratio rho, and its slope in log rho."""
    log_ratio = free(2 * math.log(ratio))
    loss = clipped_ratio(log_ratio, row(2.0), row(advantage), row(1.0), 0.2)
    (slope,) = torch.autograd.grad(loss.sum(), log_ratio)
    return float(loss.detach()), 2 * float(slope)  # log rho is half the sum


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 1.0, -1.0, -1.0),  # inside: -rho A, slope -rho A
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 1.0, -1.2, 0.0),  # already raised enough
        (0.5, 1.0, -0.5, -0.5),  # a good answer that fell is never clipped
        (0.5, -1.0, 0.8, 0.0),  # already lowered enough
        (1.5, -1.0, 1.5, 1.5),  # a bad answer that rose is never clipped
        (0.9, -1.0, 0.9, 0.9),
    ],
)
def test_the_clip_stops_only_what_went_far_enough(ratio, advantage, loss, slope):
    found = clipped(ratio, advantage)
    assert found == pytest.approx((loss, slope), abs=1e-9)


def test_the_clipped_loss_is_the_mean_by_weight():
    # rho 1: -(3 * 1 + 1 * (-2)) / 4 = -1/4
    loss = clipped_ratio(row(0, 0), row(2, 5), row(1.0, -2.0), row(3.0, 1.0), 0.2)
    assert float(loss) == pytest.approx(-0.25)


def test_advantages_are_standardised_by_weight():
    # weights 3:1, returns (0, 1): mean 1/4, variance 3/16, std sqrt(3)/4: (-1/sqrt 3, sqrt 3)
    advantage = group_advantages(row(0.0, 1.0), row(3.0, 1.0))
    assert advantage[0].tolist() == pytest.approx([-1 / math.sqrt(3), math.sqrt(3)])
    shifted = group_advantages(row(0.0, 1.0) * 7 + 2, row(3.0, 1.0))
    assert torch.allclose(shifted, advantage)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, 1.0, 123.456])
def test_equal_returns_have_no_advantage_whatever_float32_makes_of_their_mean(value):
    weights = torch.rand(200, 7, generator=torch.Generator().manual_seed(0)) + 0.01
    assert not bool(group_advantages(torch.full((200, 7), value), weights).any())


def test_a_small_difference_of_returns_is_still_an_advantage():
    advantage = group_advantages(torch.tensor([[0.5, 0.5001]]), torch.ones(1, 2))
    assert advantage[0].tolist() == pytest.approx([-1, 1], abs=1e-2)


def test_direct_reward_is_zero_and_flat_at_the_tilted_reference():
    # pi* = mu e^(r / beta) / Z has log-ratio (r - V) / beta with V = beta log Z.
    value, prior, beta = row(1.0, 0.2, -0.5), row(0.5, 0.3, 0.2), 0.4
    partition = (prior * (value / beta).exp()).sum()
    ratio = (value / beta - partition.log()).requires_grad_()
    loss = direct_reward(ratio, value, prior, beta)
    loss.sum().backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-15)
    assert ratio.grad is not None and float(ratio.grad.abs().max()) < 1e-12


def test_direct_reward_at_the_start_by_hand():
    # beta 1, mu (1/2, 1/2), r (ln 3, 0): V = ln 2, residuals ln 1.5 and -ln 2;
    # loss = (ln^2 1.5 + ln^2 2) / 4. Counts (5, 5) say the same as shares.
    expected = (math.log(1.5) ** 2 + LN2**2) / 4
    for share in (0.5, 5.0):
        loss = direct_reward(row(0, 0), row(LN3, 0.0), row(share, share), 1.0)
        assert float(loss) == pytest.approx(expected)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "cloning": lambda p, length, v, w, m: weighted_cloning(p, length, w),
    "kl": lambda p, length, v, w, m: candidate_kl(p, v, m),
    "listwise": lambda p, length, v, w, m: listwise(p, w, w / w.sum(-1, keepdim=True), m),
    "clipped": lambda p, length, v, w, m: clipped_ratio(
        p, length, group_advantages(v, w), w, clip=0.2
    ),
    "direct": lambda p, length, v, w, m: direct_reward(p, v, w, 0.3),
}
"""Of log-probability or log-ratio, length, return or reference, weight (0 for padding), mask."""


def example(num_padding: int, garbage: float) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    columns = [torch.rand(2, 3, generator=generator, dtype=torch.float64) for _ in range(4)]
    logprob, length, value, weight = columns

    def padded(tensor: Tensor, fill: float) -> Tensor:
        return torch.cat([tensor, torch.full((2, num_padding), fill, dtype=torch.float64)], 1)

    return (
        padded(-logprob, garbage),
        padded(1 + 5 * length, 0.0),
        padded(value, garbage),
        padded(weight + 0.1, 0.0),
        padded(torch.ones(2, 3), 0.0).bool(),
    )


@pytest.mark.parametrize("garbage", [0.0, -50.0, 1e6])
@pytest.mark.parametrize("name", LOSSES)
def test_padding_never_matters(name, garbage):
    plain, padded = example(0, 0.0), example(2, garbage)
    for logprob in (plain[0], padded[0]):
        logprob.requires_grad_()
    short, long = LOSSES[name](*plain), LOSSES[name](*padded)
    assert torch.allclose(short, long, atol=1e-12)
    (slope,) = torch.autograd.grad(short.sum(), plain[0])
    (padded_slope,) = torch.autograd.grad(long.sum(), padded[0])
    assert torch.allclose(padded_slope[:, :3], slope) and not bool(padded_slope[:, 3:].any())


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_candidates_never_matters(name):
    columns, order = example(0, 0.0), torch.tensor([2, 0, 1])
    moved = [tensor[:, order] for tensor in columns]
    assert torch.allclose(LOSSES[name](*columns), LOSSES[name](*moved))


def test_a_question_without_weights_has_no_loss_and_no_gradient():
    for loss in (
        lambda ratio: direct_reward(ratio, row(0.3, 0.9), row(0.0, 0.0), 0.1),
        lambda ratio: clipped_ratio(ratio, row(2, 2), row(1, -1), row(0.0, 0.0), 0.2),
        lambda ratio: weighted_cloning(ratio, row(2, 2), row(0.0, 0.0)),
    ):
        ratio = free(0.5, -0.5)
        value = loss(ratio)
        value.sum().backward()
        assert float(value.detach()) == 0
        assert ratio.grad is not None and ratio.grad.tolist() == [[0.0, 0.0]]


def test_no_gradient_flows_into_the_estimate_of_the_kl():
    ratio, kl = free(0.4), free(0.2)
    kto(ratio, TRUE, kl, 0.5).sum().backward()
    assert ratio.grad is not None and float(ratio.grad) < 0
    assert kl.grad is None


def test_losses_are_pure():
    columns = example(1, 7.0)
    before = [tensor.clone() for tensor in columns]
    for loss in LOSSES.values():
        assert torch.equal(loss(*columns), loss(*columns))
    assert all(torch.equal(a, b) for a, b in zip(before, columns, strict=True))
