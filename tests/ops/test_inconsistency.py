"""Known answers of the penalties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from trialign_ray.errors import ConfigError, ShapeError
from trialign_ray.ops.inconsistency import excess_disagreement, generalized_jsd, penalty_by_name

PAIR = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
DISJOINT = torch.eye(2, dtype=torch.float64)
PENALTIES = [generalized_jsd, excess_disagreement]


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


@pytest.mark.parametrize("penalty", PENALTIES)
def test_equal_distributions_cost_nothing_even_if_all_are_wrong(penalty):
    assert float(penalty(PAIR[:1].expand(4, -1))) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_one_group_alone_is_consistent(penalty):
    assert float(penalty(PAIR[:1])) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("penalty", PENALTIES)
@given(p=distributions(), q=distributions(), share=st.floats(0, 1))
def test_penalties_are_convex_along_segments(penalty, p, q, share):
    mixed = penalty(share * p + (1 - share) * q)
    assert float(mixed) <= float(share * penalty(p) + (1 - share) * penalty(q)) + 1e-9


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_group_of_weight_zero_is_absent(penalty):
    third = torch.tensor([[0.0, 1.0]]).double()
    weights = torch.tensor([1.0, 1.0, 0.0])
    assert float(penalty(torch.cat([PAIR, third]), weights)) == pytest.approx(float(penalty(PAIR)))


def test_batches_of_questions_keep_their_shape():
    assert generalized_jsd(PAIR.expand(5, 2, 2)).shape == (5,)


def test_wrong_shape_and_unknown_name_are_refused():
    with pytest.raises(ShapeError):
        generalized_jsd(torch.tensor([0.5, 0.5]))
    with pytest.raises(ConfigError, match="generalized_jsd"):
        penalty_by_name("jsd")
