"""Known answers of the mixing operators, each derived beside it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trialign_ray.errors import ConfigError, ShapeError
from trialign_ray.ops.welfare import (
    LogNash,
    PowerMean,
    extended_log,
    present_weights,
    welfare_by_name,
)

U14 = torch.tensor([1.0, 4.0], dtype=torch.float64)
OPERATORS = [LogNash(), PowerMean(1), PowerMean(0.5), PowerMean(0), PowerMean(-1), PowerMean(-8)]
returns = st.lists(st.floats(0.05, 5), min_size=2, max_size=6)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (2, 2.9154759),  # sqrt((1 + 16) / 2)
        (1, 2.5),  # (1 + 4) / 2
        (0.5, 2.25),  # ((1 + 2) / 2)^2
        (0, 2.0),  # sqrt(1 * 4)
        (-1, 1.6),  # 2 / (1 + 1/4)
        (-2, 1.3719887),  # sqrt(2 / (1 + 1/16))
        (-64, 1.0108893),  # (1/2 + tiny)^(-1/64) = 2^(1/64)
        (-math.inf, 1.0),  # the worst group
        (1e-3, 2.000480510689),  # 2 * exp(p/2 * Var log u): Var = (log 2)^2, plus higher order
    ],
)
def test_power_mean_of_one_and_four(p, expected):
    assert float(PowerMean(p).value(U14)) == pytest.approx(expected, abs=5e-8)


@pytest.mark.parametrize(
    ("p", "expected"),
    # c_g = w_g (M_p / u_g)^(1 - p); p = .5: .5 * sqrt(2.25) = .75, .5 * sqrt(2.25 / 4) = .375
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


def test_log_nash_is_free_of_scale():
    better = torch.tensor([2.0, 3.0], dtype=torch.float64)
    worse = torch.tensor([1.0, 5.0], dtype=torch.float64)
    for scale in (torch.tensor([1.0, 1.0]), torch.tensor([100.0, 1.0])):
        assert LogNash().value(scale * better) > LogNash().value(scale * worse)


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


def test_pigou_dalton_transfer_raises_the_nash_mean_by_the_known_amount():
    # (1 2 6)^(1/3) = 2.289428, (1.5 2 5.5)^(1/3) = 2.545821
    before, after = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.5, 2.0, 5.5])
    gain = PowerMean(0).value(after.double()) - PowerMean(0).value(before.double())
    assert float(gain) == pytest.approx(0.256393, abs=1e-6)


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
@given(values=returns)
def test_order_of_groups_does_not_matter(operator, values):
    u = torch.tensor(values, dtype=torch.float64)
    assert float(operator.value(u.flip(0))) == pytest.approx(float(operator.value(u)), abs=1e-9)


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
@given(values=returns, share=st.floats(0.0, 0.5))
def test_a_transfer_to_the_worse_off_never_lowers_welfare(operator, values, share):
    u = torch.tensor(sorted(values), dtype=torch.float64)
    moved = u.clone()
    amount = share * (u[-1] - u[0])
    moved[0], moved[-1] = u[0] + amount, u[-1] - amount
    assert float(operator.value(moved)) >= float(operator.value(u)) - 1e-9


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
@given(values=returns)
def test_credit_is_the_gradient_of_value(operator, values):
    u = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    weights = torch.arange(1, len(values) + 1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(operator.value(u, weights), u)
    assert torch.allclose(operator.credit(u.detach(), weights), gradient, atol=1e-9)


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_an_absent_group_is_left_out_and_not_counted_as_zero(operator):
    u, present = torch.tensor([0.0, 1.0, 4.0]).double(), torch.tensor([False, True, True])
    assert float(operator.value(u, None, present)) == pytest.approx(float(operator.value(U14)))
    assert float(operator.credit(u, None, present)[0]) == 0.0


def test_wrong_weights_and_shapes_are_refused():
    with pytest.raises(ConfigError, match="must be >= 0"):
        present_weights(U14, torch.tensor([-1.0, 2.0]))
    with pytest.raises(ConfigError):
        present_weights(U14, None, torch.tensor([False, False]))
    with pytest.raises(ShapeError, match="expected two vectors"):
        present_weights(U14, torch.ones(3))
    with pytest.raises(ConfigError, match="log_nash"):
        welfare_by_name("nash")
