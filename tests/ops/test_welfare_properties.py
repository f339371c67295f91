"""What holds for every mixing operator: order, monotony, equity, concavity, credit, scale."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trialign_ray.ops.welfare import (
    GeneralizedGini,
    LogNash,
    PowerMean,
    SoftMin,
    welfare_by_name,
)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


HOMOGENEOUS = {
    **{f"power_mean_{p}": lambda n, p=p: PowerMean(p) for p in (1, 0.5, 0, -1, -8, -math.inf)},
    "gini": lambda n: GeneralizedGini.gini(n),
    "gini_any_number": lambda n: GeneralizedGini.gini(),
    "cvar": lambda n: GeneralizedGini.cvar(level=0.4),
    "maximin": lambda n: GeneralizedGini.maximin(),
    "omega": lambda n: GeneralizedGini([1.0 / k for k in range(1, n + 1)]),
}
FAIR = {**HOMOGENEOUS, "log_nash": lambda n: LogNash(), "soft_min": lambda n: SoftMin(0.5)}
ALL = {
    **FAIR,
    "power_mean_2": lambda n: PowerMean(2),
    "power_mean_inf": lambda n: PowerMean(math.inf),
}


def operators(makers):
    return pytest.mark.parametrize("make", makers.values(), ids=makers.keys())


def players(low, high, columns):
    """Rows of 2 to 5 players with `columns` numbers each; transposed into vectors."""
    row = st.tuples(*[st.floats(low, high) for _ in range(columns)])
    rows = st.lists(row, min_size=2, max_size=5)
    return rows.map(lambda r: torch.tensor(r, dtype=torch.float64).T)


quick = settings(max_examples=40, deadline=None)


@operators(FAIR)
def test_pigou_dalton_on_the_known_transfer(make):
    welfare, after = make(3), vector(1.5, 2.0, 5.5)
    gain = float(welfare.value(after) - welfare.value(vector(1.0, 2.0, 6.0)))
    assert gain > 1e-3 or (welfare == PowerMean(1) and gain == pytest.approx(0, abs=1e-12))


@quick
@given(pw=players(0.05, 5, 2))
def test_gini_is_the_mean_of_the_poorer_of_two_draws(pw):
    u, w = pw[0].tolist(), (pw[1] / pw[1].sum()).tolist()
    naive = 0.0
    for g in range(len(u)):
        for h in range(len(u)):
            naive += w[g] * w[h] * min(u[g], u[h])
    assert float(GeneralizedGini.gini().value(*pw)) == pytest.approx(naive, abs=1e-9)


@quick
@given(pw=players(0.05, 5, 2), level=st.floats(0.05, 1))
def test_cvar_is_the_concave_program_of_rockafellar_and_uryasev(pw, level):
    # CVaR = max_z z - E (z - u)_+ / level; piecewise linear in z, so a maximiser is some u_g.
    u, w = pw[0].tolist(), (pw[1] / pw[1].sum()).tolist()
    naive = max(
        z - sum(share * max(z - x, 0) for x, share in zip(u, w, strict=True)) / level for z in u
    )
    assert float(GeneralizedGini.cvar(level=level).value(*pw)) == pytest.approx(naive, abs=1e-9)


@operators(ALL)
@quick
@given(uw=players(0.05, 5, 2))
def test_order_of_groups_does_not_matter(make, uw):
    welfare, value = make(uw.shape[1]), make(uw.shape[1]).value(*uw)
    for shift in range(uw.shape[1]):
        moved = uw.roll(shift, 1).flip(1)
        assert float(welfare.value(*moved)) == pytest.approx(float(value), abs=1e-9)


@operators(ALL)
@quick
@given(udw=players(0.05, 5, 3), down=st.floats(0, 6))
def test_more_for_somebody_is_never_worse_and_more_for_all_is_better(make, udw, down):
    u, more, w = udw[0] - down, udw[1], udw[2]
    welfare = make(len(u))
    assert float(welfare.value(u + more, w)) >= float(welfare.value(u, w)) - 1e-9
    assert float(welfare.value(udw[0] + 0.1, w)) > float(welfare.value(udw[0], w))
    assert bool((welfare.credit(u, w) >= 0).all())


@operators(FAIR)
@quick
@given(u=players(0.05, 5, 1), share=st.floats(0.0, 0.5))
def test_a_transfer_to_the_worse_off_never_lowers_welfare(make, u, share):
    u = u[0].sort().values
    moved, amount = u.clone(), share * (u[-1] - u[0])
    moved[0], moved[-1] = u[0] + amount, u[-1] - amount
    assert float(make(len(u)).value(moved)) >= float(make(len(u)).value(u)) - 1e-9


@operators(FAIR)
@quick
@given(uvw=players(0.05, 5, 3), share=st.floats(0, 1))
def test_concave_along_segments_where_it_says_so(make, uvw, share):
    welfare, w = make(uvw.shape[1]), uvw[2]
    u, v = (uvw[:2] - 2.5) if math.isinf(welfare.concave_from) else uvw[:2]
    assert float(torch.stack([u, v]).min()) >= welfare.concave_from
    mixed = welfare.value(share * u + (1 - share) * v, w)
    chord = share * welfare.value(u, w) + (1 - share) * welfare.value(v, w)
    assert float(mixed) >= float(chord) - 1e-9


@operators(ALL)
@quick
@given(uw=players(0.05, 5, 2))
def test_credit_is_the_gradient_of_value(make, uw):
    u, welfare = uw[0].clone().requires_grad_(True), make(uw.shape[1])
    (gradient,) = torch.autograd.grad(welfare.value(u, uw[1]), u)
    assert torch.allclose(welfare.credit(uw[0], uw[1]), gradient, atol=1e-9)


@operators(ALL)
def test_credit_is_the_slope_that_differences_measure(make):
    u, w, h = vector(0.7, 3.0, 1.1, 2.0), vector(1.0, 2.0, 3.0, 1.5), 1e-5
    welfare = make(4)
    credit = welfare.credit(u, w)
    for g in range(4):
        step = h * torch.eye(4, dtype=torch.float64)[g]
        slope = (welfare.value(u + step, w) - welfare.value(u - step, w)) / (2 * h)
        assert float(credit[g]) == pytest.approx(float(slope), abs=1e-7)


@operators(FAIR)
@quick
@given(uvw=players(0.05, 5, 3))
def test_credit_is_a_supergradient_at_ties_too(make, uvw):
    welfare, u, v, w = make(uvw.shape[1]), uvw[0].ceil(), uvw[1], uvw[2]
    bound = welfare.value(u, w) + (welfare.credit(u, w) * (v - u)).sum()
    assert float(welfare.value(v, w)) <= float(bound) + 1e-9


@operators(HOMOGENEOUS)
@quick
@given(uw=players(0.05, 5, 2), scale=st.floats(0.5, 20))
def test_means_scale_with_returns_and_obey_euler(make, uw, scale):
    (u, w), welfare = uw, make(uw.shape[1])
    value = float(welfare.value(u, w))
    assert float(welfare.value(scale * u, w)) == pytest.approx(scale * value, rel=1e-9)
    assert float((u * welfare.credit(u, w)).sum()) == pytest.approx(value, rel=1e-9)
    # A power of two scales without rounding, so it neither makes nor breaks a tie.
    assert torch.allclose(welfare.credit(4 * u, w), welfare.credit(u, w), atol=1e-9)


@pytest.mark.parametrize("name", ["soft_min", "gini", "cvar", "maximin"])
@quick
@given(
    uw=players(-3, 5, 2).map(lambda t: torch.stack([t[0], t[1].abs() + 0.1])), c=st.floats(-9, 9)
)
def test_a_gift_to_all_shifts_welfare_by_the_gift(name, uw, c):
    welfare = welfare_by_name(name)
    shifted = float(welfare.value(uw[0] + c, uw[1]))
    assert shifted == pytest.approx(float(welfare.value(*uw)) + c, abs=1e-9)
    assert float(welfare.credit(*uw).sum()) == pytest.approx(1.0)


@quick
@given(uvs=players(0.1, 5, 3))
def test_log_nash_compares_alike_after_scaling_any_group(uvs):
    u, v, scale = uvs
    before = LogNash().value(u) - LogNash().value(v)
    after = LogNash().value(scale * u) - LogNash().value(scale * v)
    assert float(after) == pytest.approx(float(before), abs=1e-9)


@operators(ALL)
def test_an_absent_group_is_left_out_and_not_counted_as_zero(make):
    u, present, welfare = vector(0.0, 1.0, 4.0), torch.tensor([False, True, True]), make(2)
    expected = float(welfare.value(vector(1.0, 4.0)))
    assert float(welfare.value(u, None, present)) == pytest.approx(expected)
    assert float(welfare.value(u, vector(0.0, 1.0, 1.0))) == pytest.approx(expected)
    assert float(welfare.value(vector(math.nan, 1.0, 4.0), None, present)) == pytest.approx(
        expected
    )
    assert float(welfare.credit(u, None, present)[0]) == 0.0
