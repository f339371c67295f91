"""Known answers of the mixing operators, each derived beside it, and what they refuse."""

import math

import pytest
import torch

from trialign_ray.errors import ConfigError, ShapeError
from trialign_ray.ops.welfare import (
    WELFARES,
    GeneralizedGini,
    LogNash,
    PowerMean,
    SoftMin,
    extended_log,
    present_weights,
    welfare_by_name,
)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


U14 = vector(1.0, 4.0)
U126 = vector(1.0, 2.0, 6.0)
HALF = vector(0.5, 0.5)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (math.inf, 4.0),  # the best group
        (2, 2.9154759),  # sqrt((1 + 16) / 2)
        (1, 2.5),  # (1 + 4) / 2
        (0.5, 2.25),  # ((1 + 2) / 2)^2
        (0, 2.0),  # sqrt(1 * 4)
        (-1, 1.6),  # 2 / (1 + 1/4)
        (-2, 1.3719887),  # sqrt(2 / (1 + 1/16)) = sqrt(32/17) = 1.3719887
        (-64, 1.0108893),  # (1/2 + tiny)^(-1/64) = 2^(1/64)
        (-math.inf, 1.0),  # the worst group
        (1e-3, 2.000480510689),  # 2 * exp(p/2 * Var log u): Var = (log 2)^2, plus higher order
    ],
)
def test_power_mean_of_one_and_four(p, expected):
    assert float(PowerMean(p).value(U14)) == pytest.approx(expected, abs=5e-8)


@pytest.mark.parametrize(
    ("p", "expected"),
    # c_g = w_g (M_p / u_g)^(1 - p); p = .5: .5 * sqrt(2.25) = .75, .5 * sqrt(2.25 / 4) = .375;
    # p = 0: .5 * 2 / 1, .5 * 2 / 4; p = -1: .5 * 1.6^2 = 1.28, .5 * .4^2 = .08
    [(0.5, (0.75, 0.375)), (0, (1.0, 0.25)), (-1, (1.28, 0.08))],
)
def test_credits_of_the_power_mean(p, expected):
    credit = PowerMean(p).credit(U14)
    assert credit.tolist() == pytest.approx(expected, abs=1e-9)
    # M_p is homogeneous of degree 1, so Euler's theorem gives sum u c = M_p.
    assert float((U14 * credit).sum()) == pytest.approx(float(PowerMean(p).value(U14)), abs=1e-9)


def test_the_series_near_zero_joins_the_formula():
    below, above = (float(PowerMean(p).value(U14)) for p in (0.99e-5, 1.01e-5))
    assert above - below == pytest.approx(2 * math.log(2) ** 2 / 2 * 2e-7, rel=1e-2)


def test_a_power_above_one_rewards_inequality_and_claims_no_concavity():
    assert PowerMean(2).value(U14) > PowerMean(2).value(vector(2.5, 2.5))
    assert PowerMean(2).concave_from == math.inf


def test_log_nash_is_free_of_scale():
    better, worse = vector(2.0, 3.0), vector(1.0, 5.0)  # 2 * 3 > 1 * 5, though 2 + 3 < 1 + 5
    for scale in (vector(1.0, 1.0), vector(100.0, 1.0), vector(1.0, 100.0)):
        assert LogNash().value(scale * better) > LogNash().value(scale * worse)
    assert PowerMean(1).value(vector(100.0, 1.0) * better) > PowerMean(1).value(worse)
    assert PowerMean(1).value(better) < PowerMean(1).value(worse)


def test_extended_log_continues_by_its_tangent():
    # phi(0) = log(.01) + (0 - .01) / .01 = -4.605170 - 1
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = extended_log(zero)
    value.backward()
    assert float(value.detach()) == pytest.approx(-5.605170, abs=1e-6)
    assert zero.grad is not None and float(zero.grad) == pytest.approx(100.0)


def test_a_group_at_zero_still_gets_credit():
    credit = LogNash().credit(torch.tensor([0.0, 1.0]))
    assert credit.tolist() == pytest.approx([50.0, 0.5])


def test_gini_weights_of_two_and_three_players():
    # omega_k = (2(G-k)+1)/G^2: G = 2 (3, 1)/4, G = 3 (5, 3, 1)/9
    assert list(GeneralizedGini.gini(2).omega) == pytest.approx([3 / 4, 1 / 4])
    assert list(GeneralizedGini.gini(3).omega) == pytest.approx([5 / 9, 3 / 9, 1 / 9])
    # 3/4 * 1 + 1/4 * 4 = 1.75; (5 * 1 + 3 * 2 + 1 * 6) / 9 = 17/9
    assert float(GeneralizedGini.gini(2).value(U14)) == pytest.approx(1.75)
    assert float(GeneralizedGini.gini(3).value(U126)) == pytest.approx(17 / 9)
    assert float(GeneralizedGini.gini().value(U126.flip(0))) == pytest.approx(17 / 9)


def test_generalized_gini_weighs_by_rank_and_not_by_position():
    welfare = GeneralizedGini((2 / 3, 1 / 3))
    assert float(welfare.value(U14)) == pytest.approx(2.0)  # 2/3 * 1 + 1/3 * 4
    assert welfare.credit(U14.flip(0)).tolist() == pytest.approx([1 / 3, 2 / 3])


def test_cvar_is_the_mean_of_the_worst_share():
    # The lower half of (1, 2, 6, 7) is (1, 2). Level .6 adds a tenth of weight at 6 to a half:
    # (.25 * 1 + .25 * 2 + .1 * 6) / .6 = 2.25. Level 1 is the mean, 4.
    u = vector(7.0, 1.0, 6.0, 2.0)
    for level, expected in ((0.5, 1.5), (0.6, 2.25), (1.0, 4.0)):
        assert float(GeneralizedGini.cvar(4, level).value(u)) == pytest.approx(expected)
    assert list(GeneralizedGini.cvar(4, 0.6).omega) == pytest.approx([5 / 12, 5 / 12, 1 / 6, 0])


def test_tied_players_share_the_mean_omega():
    # Ranks 1 and 2 of (5, 3, 1)/9 are tied: (5 + 3) / 2 / 9 = 4/9 each. Maximin: 1/2 each.
    u = vector(6.0, 2.0, 2.0)
    assert GeneralizedGini.gini(3).credit(u).tolist() == pytest.approx([1 / 9, 4 / 9, 4 / 9])
    assert GeneralizedGini.maximin(3).credit(u).tolist() == pytest.approx([0, 0.5, 0.5])
    assert GeneralizedGini((0.6, 0.4)).credit(vector(1.0, 1.0)).tolist() == [0.5, 0.5]


def test_unequal_weights_of_an_own_omega_cut_its_steps():
    # w = (2, 1)/3. Density 2 * 2/3 on [0, 1/2], 2 * 1/3 on [1/2, 1]. The worst player holds
    # [0, 2/3]: 2/3 + (2/3 - 1/2) * 2/3 = 7/9; W = 7/9 * 1 + 2/9 * 4 = 5/3.
    welfare = GeneralizedGini((2 / 3, 1 / 3))
    assert float(welfare.value(U14, vector(2.0, 1.0))) == pytest.approx(5 / 3)
    assert welfare.credit(U14, vector(2.0, 1.0)).tolist() == pytest.approx([7 / 9, 2 / 9])


def test_soft_minimum_of_one_and_four():
    # -log(.5 e^-1 + .5 e^-4) = -log(.193098) = 1.6445598; e^-1 / (e^-1 + e^-4) = .952574
    welfare = SoftMin(1.0)
    assert float(welfare.value(U14, HALF)) == pytest.approx(1.6445598, abs=1e-7)
    assert welfare.credit(U14, HALF).tolist() == pytest.approx((0.952574, 0.047426), abs=1e-6)


def test_soft_minimum_lies_between_the_worst_and_the_mean():
    # T -> 0: min + T log 2; T -> infinity: mean - Var / (2 T), Var = 2.25
    assert float(SoftMin(1e-3).value(U14)) == pytest.approx(1 + 1e-3 * math.log(2))
    assert float(SoftMin(1e4).value(U14)) == pytest.approx(2.5 - 2.25 / 2e4, abs=1e-8)


def test_pigou_dalton_transfer_raises_the_nash_mean_by_the_known_amount():
    # (1 * 2 * 6)^(1/3) = 2.289428, (1.5 * 2 * 5.5)^(1/3) = 2.545821
    gain = PowerMean(0).value(vector(1.5, 2.0, 5.5)) - PowerMean(0).value(U126)
    assert float(gain) == pytest.approx(0.256393, abs=1e-6)


@pytest.mark.parametrize("name", ["gini", "cvar", "maximin", "log_nash", "power_mean", "soft_min"])
def test_a_group_of_double_weight_counts_as_two_groups(name):
    welfare = welfare_by_name(name)
    doubled = welfare.value(U126, vector(2.0, 1.0, 1.0))
    assert float(doubled) == pytest.approx(float(welfare.value(vector(1.0, 1.0, 2.0, 6.0))))


def test_named_rank_operators_follow_the_number_present_and_an_own_omega_does_not():
    present = torch.tensor([True, False, True])
    u = vector(1.0, 0.0, 4.0)
    assert float(GeneralizedGini.gini(3).value(u, None, present)) == pytest.approx(1.75)
    with pytest.raises(ShapeError, match=r"2 players are present .* 3 omegas"):
        GeneralizedGini((0.5, 0.3, 0.2)).value(u, None, present)
    with pytest.raises(ShapeError):
        GeneralizedGini.gini(2).value(U126)


@pytest.mark.parametrize(
    ("omega", "reason"),
    [
        ((0.2, 0.8), "increases"),
        ((1.0, -0.5), "must be finite and >= 0"),
        ((math.nan, 0.5), "must be finite"),
        ((), "is empty"),
        ((0.0, 0.0), "all zero"),
    ],
)
def test_an_omega_that_is_no_fair_weighting_is_refused_with_the_reason(omega, reason):
    with pytest.raises(ConfigError, match=reason):
        GeneralizedGini(omega)


def test_options_out_of_range_are_refused():
    for build in (lambda: GeneralizedGini.cvar(3, 0.0), lambda: SoftMin(0.0)):
        with pytest.raises(ConfigError, match="expected"):
            build()
    with pytest.raises(ConfigError, match="num_players"):
        GeneralizedGini.gini(0)


def test_operators_are_found_by_name_with_their_options():
    assert welfare_by_name("power_mean", p=0.5) == PowerMean(0.5)
    assert welfare_by_name("generalized_gini", omega=[2 / 3, 1 / 3]).value(U14) == pytest.approx(2)
    assert float(welfare_by_name("cvar", level=0.5).value(U14)) == pytest.approx(1.0)
    assert welfare_by_name("soft_min", temperature=2.0) == SoftMin(2.0)
    assert float(welfare_by_name("maximin").value(U14)) == 1.0
    with pytest.raises(ConfigError, match=r"takes no option level; it takes temperature"):
        welfare_by_name("soft_min", level=0.5)
    with pytest.raises(ConfigError) as refused:
        welfare_by_name("nash")
    assert all(name in str(refused.value) for name in WELFARES)


def test_wrong_weights_and_shapes_are_refused():
    with pytest.raises(ConfigError, match="must be >= 0"):
        present_weights(U14, torch.tensor([-1.0, 2.0]))
    with pytest.raises(ConfigError):
        present_weights(U14, None, torch.tensor([False, False]))
    with pytest.raises(ShapeError, match="expected two vectors"):
        present_weights(U14, torch.ones(3))
