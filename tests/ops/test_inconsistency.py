"""Known answers of the penalties."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from trialign_ray.errors import ConfigError, ShapeError
from trialign_ray.ops.inconsistency import (
    PENALTIES,
    entropy,
    excess_disagreement,
    generalized_jsd,
    levelling_up,
    penalty_by_name,
    truth_variance,
)

PAIR = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
DISJOINT = torch.eye(2, dtype=torch.float64)
DISTRIBUTION_PENALTIES = list(PENALTIES.values())
TRUTH_PENALTIES = [levelling_up, truth_variance]
quick = settings(max_examples=50, deadline=None)


def distributions(num_groups=3, num_answers=4):
    weights = st.lists(st.floats(0.01, 1), min_size=num_answers, max_size=num_answers)
    return st.lists(weights, min_size=num_groups, max_size=num_groups).map(
        lambda rows: torch.nn.functional.normalize(torch.tensor(rows).double(), p=1, dim=-1)
    )


def test_disjoint_answers_diverge_by_the_log_of_the_number_of_groups():
    assert float(generalized_jsd(DISJOINT)) == pytest.approx(math.log(2))
    assert float(generalized_jsd(torch.eye(3).double())) == pytest.approx(math.log(3))
    assert float(generalized_jsd(torch.eye(3).double(), normalized=True)) == pytest.approx(1.0)


def test_unequal_weights_give_the_entropy_of_the_weights():
    # -(.25 ln .25 + .75 ln .75)
    weights = torch.tensor([0.25, 0.75])
    assert float(generalized_jsd(DISJOINT, weights)) == pytest.approx(0.562335, abs=1e-6)


def test_divergence_of_a_pair():
    # H(.7, .3) - (H(.9, .1) + H(.5, .5)) / 2 = .610864 - (.325083 + .693147) / 2
    assert float(generalized_jsd(PAIR)) == pytest.approx(0.101749, abs=1e-6)


def test_it_is_the_square_of_scipys_distance():
    assert float(generalized_jsd(PAIR)) == pytest.approx(jensenshannon(*PAIR.numpy()) ** 2)


def test_excess_disagreement_of_pair_and_triple():
    # ((.4)^2 + (.4)^2) / 2 = .16; the triple's pairs: .16, .04, .04
    assert float(excess_disagreement(PAIR)) == pytest.approx(0.16)
    triple = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.7, 0.3]]).double()
    assert float(excess_disagreement(triple)) == pytest.approx(0.08)


@pytest.mark.parametrize("penalty", DISTRIBUTION_PENALTIES)
def test_equal_distributions_cost_nothing_even_if_all_are_wrong(penalty):
    assert float(penalty(PAIR[:1].expand(4, -1))) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("penalty", DISTRIBUTION_PENALTIES)
def test_one_group_alone_is_consistent(penalty):
    assert float(penalty(PAIR[:1])) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("penalty", DISTRIBUTION_PENALTIES)
@quick
@given(p=distributions(), q=distributions(), share=st.floats(0, 1))
def test_penalties_are_convex_along_segments(penalty, p, q, share):
    mixed = penalty(share * p + (1 - share) * q)
    assert float(mixed) <= float(share * penalty(p) + (1 - share) * penalty(q)) + 1e-9


@pytest.mark.parametrize("penalty", DISTRIBUTION_PENALTIES)
def test_a_group_of_weight_zero_is_absent(penalty):
    third = torch.tensor([[0.0, 1.0]]).double()
    weights = torch.tensor([1.0, 1.0, 0.0])
    assert float(penalty(torch.cat([PAIR, third]), weights)) == pytest.approx(float(penalty(PAIR)))


@pytest.mark.parametrize("penalty", DISTRIBUTION_PENALTIES)
@quick
@given(p=distributions(), shift=st.integers(0, 2))
def test_order_of_groups_and_of_answers_does_not_matter(penalty, p, shift):
    weights = torch.tensor([0.2, 0.3, 0.5]).double()
    expected = float(penalty(p, weights))
    assert float(penalty(p.roll(shift, 0), weights.roll(shift))) == pytest.approx(expected)
    assert float(penalty(p.flip(-1), weights)) == pytest.approx(expected)


@pytest.mark.parametrize("penalty", DISTRIBUTION_PENALTIES)
@quick
@given(p=distributions(), share=st.floats(0, 1))
def test_penalties_are_zero_where_groups_are_equal_and_only_there(penalty, p, share):
    assert float(penalty(p[:1].expand(3, -1))) == pytest.approx(0.0, abs=1e-12)
    apart = p.clone()
    apart[1] = (p[0] + torch.eye(4)[0]) / 2
    distance = float((apart - apart[:1]).abs().max())
    assert float(penalty(apart)) > distance**2 / 10


@pytest.mark.parametrize("penalty", DISTRIBUTION_PENALTIES)
def test_gradients_are_finite_where_an_answer_has_no_mass(penalty):
    # Group 1 never gives answer 2, and nobody gives answer 3.
    p = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.2, 0.3, 0.5, 0.0]]).double().requires_grad_(True)
    (slope,) = torch.autograd.grad(penalty(p), p)
    assert bool(slope.isfinite().all())
    assert slope[0, 2] < slope[0, 1]  # group 1 comes nearer by moving mass to answer 2
    assert slope[0, 3] == slope[1, 3]


def test_entropy_keeps_its_values_down_to_zero():
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5], [1e-300, 1.0]]).double()
    expected = [0.0, math.log(2), 300e-300 * math.log(10)]
    assert entropy(p).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_jensen_gap_of_a_naive_loop_is_the_divergence():
    p = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]).double()
    weights, total = [0.25, 0.75], 0.0
    for answer in range(3):
        mixed = sum(w * float(row[answer]) for w, row in zip(weights, p, strict=True))
        for w, row in zip(weights, p, strict=True):
            total += w * float(row[answer]) * math.log(float(row[answer]) / mixed)
    assert float(generalized_jsd(p, torch.tensor(weights))) == pytest.approx(total)


def test_falling_short_of_the_mean_is_what_levelling_up_counts():
    # Mean .6, shortfalls (.3, .1, 0): (.09 + .01) / 3; variance: (.09 + .01 + .16) / 3
    t = torch.tensor([0.3, 0.5, 1.0]).double()
    assert float(levelling_up(t)) == pytest.approx(0.1 / 3)
    assert float(truth_variance(t)) == pytest.approx(0.26 / 3)
    # Weights (2, 1, 1)/4: mean .525, shortfalls (.225, .025, 0): .5 * .050625 + .25 * .000625
    weights = torch.tensor([2.0, 1.0, 1.0])
    assert float(levelling_up(t, weights)) == pytest.approx(0.02546875)
    assert float(truth_variance(t, weights)) == pytest.approx(0.02546875 + 0.25 * 0.475**2)


@pytest.mark.parametrize("penalty", TRUTH_PENALTIES)
def test_truth_penalties_fall_also_by_making_the_best_group_worse(penalty):
    assert penalty(torch.tensor([0.3, 0.5])) < penalty(torch.tensor([0.3, 0.9]))
    assert float(penalty(torch.zeros(4))) == 0.0  # all wrong alike is no inequality


@pytest.mark.parametrize("penalty", TRUTH_PENALTIES)
@quick
@given(
    t=st.lists(st.floats(0, 1), min_size=8, max_size=8),
    share=st.floats(0, 1),
    shift=st.floats(0, 1),
)
def test_truth_penalties_are_convex_symmetric_and_blind_to_a_common_shift(penalty, t, share, shift):
    a, b = torch.tensor(t).double().reshape(2, 4)
    mixed = float(penalty(share * a + (1 - share) * b))
    assert mixed <= float(share * penalty(a) + (1 - share) * penalty(b)) + 1e-12
    assert float(penalty(a.flip(0))) == pytest.approx(float(penalty(a)), abs=1e-12)
    assert float(penalty(a + shift)) == pytest.approx(float(penalty(a)), abs=1e-12)
    spread = float(a.max() - a.min())
    assert float(penalty(a)) >= (spread / 4) ** 2 / 4 - 1e-12


@pytest.mark.parametrize("penalty", TRUTH_PENALTIES)
def test_truth_of_an_absent_group_is_not_read(penalty):
    t = torch.tensor([[0.2, math.nan, 0.8], [0.4, 0.4, math.nan]], requires_grad=True)
    weights = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    d = penalty(t, weights)
    # Row 1: mean .5, deviations of .3; only the lower one counts in levelling up.
    assert d.tolist() == pytest.approx([0.045 if penalty is levelling_up else 0.09, 0.0])
    (slope,) = torch.autograd.grad(d.sum(), t)
    assert slope[0, 1] == 0.0 and bool(slope.isfinite().all())


def test_batches_of_questions_keep_their_shape():
    assert generalized_jsd(PAIR.expand(5, 2, 2)).shape == (5,)
    assert levelling_up(torch.rand(6, 5, 3)).shape == truth_variance(torch.rand(6, 5, 3)).shape


@pytest.mark.parametrize("penalty", DISTRIBUTION_PENALTIES + TRUTH_PENALTIES)
def test_rows_of_a_batch_are_scored_one_by_one(penalty):
    shape = (3, 2) if penalty in TRUTH_PENALTIES else (3, 2, 4)
    batch = torch.rand(shape, generator=torch.Generator().manual_seed(0)).double().softmax(-1)
    weights = torch.tensor([[1.0, 2.0], [1.0, 1.0], [3.0, 1.0]]).double()
    rows = [float(penalty(row, w)) for row, w in zip(batch, weights, strict=True)]
    assert penalty(batch, weights).tolist() == pytest.approx(rows)


def test_wrong_shape_and_unknown_name_are_refused():
    with pytest.raises(ShapeError):
        generalized_jsd(torch.tensor([0.5, 0.5]))
    with pytest.raises(ShapeError, match="one per group"):
        levelling_up(torch.tensor(0.5))
    with pytest.raises(ConfigError, match="generalized_jsd"):
        penalty_by_name("jsd")
