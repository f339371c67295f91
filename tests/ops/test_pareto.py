"""Fronts and volumes drawn by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trialign_ray.errors import DataError, ShapeError
from trialign_ray.ops.pareto import hypervolume, pareto_mask, rank_correlation

# A staircase (1,3), (2,2), (3,1); below it (1,1) and (2,1), the second on the third step's height.
STAIRS = np.array([[1.0, 3.0], [1.0, 1.0], [2.0, 2.0], [2.0, 1.0], [3.0, 1.0]])
ORIGIN = np.zeros(2)
three_goals = st.lists(st.tuples(*[st.integers(-1, 4)] * 3), min_size=1, max_size=6)


def test_the_front_is_what_nothing_dominates():
    assert pareto_mask(STAIRS).tolist() == [True, False, True, False, True]


def test_equal_points_are_all_kept():
    assert pareto_mask(np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 2.0]])).tolist() == [1, 1, 0]


def test_no_points_make_no_front():
    assert pareto_mask(np.zeros((0, 2))).shape == (0,)
    assert hypervolume(np.zeros((0, 2)), ORIGIN) == 0.0


def test_the_staircase_covers_six_squares():
    # columns of width 1 and heights 3, 2, 1; dominated points and duplicates add nothing
    assert hypervolume(STAIRS, ORIGIN) == 6.0
    assert hypervolume(np.concatenate([STAIRS, STAIRS]), ORIGIN) == 6.0
    assert hypervolume(STAIRS[[0, 2, 4]], ORIGIN) == 6.0


def test_points_that_are_not_above_the_reference_add_nothing():
    # Above (1, 1) only (2, 2) is left: one square. (1,3) and (3,1) lie on its edges.
    assert hypervolume(STAIRS, np.ones(2)) == 1.0
    assert hypervolume(STAIRS - 10, ORIGIN) == 0.0


def test_three_objectives_are_exact_too():
    # boxes 2x1x1 and 1x2x2 share 1x1x1: 2 + 4 - 1
    assert hypervolume(np.array([[2.0, 1.0, 1.0], [1.0, 2.0, 2.0]]), np.zeros(3)) == 5.0


@settings(max_examples=50, deadline=None)
@given(three_goals)
def test_the_volume_is_the_number_of_covered_cells(points):
    array = np.array(points, dtype=float)
    cells = itertools.product(range(4), repeat=3)
    covered = sum(
        any(all(c < v for c, v in zip(cell, p, strict=True)) for p in points) for cell in cells
    )
    assert hypervolume(array, np.zeros(3)) == pytest.approx(covered)


@settings(max_examples=50, deadline=None)
@given(three_goals)
def test_the_front_follows_the_naive_loops(points):
    array = np.array(points, dtype=float)
    naive = [not any((a >= b).all() and (a > b).any() for a in array) for b in array]
    assert pareto_mask(array).tolist() == naive
    assert hypervolume(array[naive], np.zeros(3)) == hypervolume(array, np.zeros(3))


def test_rank_correlation_sees_order_only():
    first = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(first, np.exp(first)) == pytest.approx(1.0)
    assert rank_correlation(first, -first) == pytest.approx(-1.0)
    # one neighbouring swap among four: 1 - 6 * 2 / (4 * 15)
    assert rank_correlation(first, np.array([2.0, 1.0, 3.0, 4.0])) == pytest.approx(0.8)
    assert math.isnan(rank_correlation(first, np.ones(4)))


def test_failed_trials_and_wrong_shapes_are_refused():
    with pytest.raises(DataError, match="NaN"):
        pareto_mask(np.array([[1.0, np.nan]]))
    with pytest.raises(ShapeError, match="one number per objective"):
        hypervolume(STAIRS, np.zeros(3))
    with pytest.raises(ShapeError, match="two equal"):
        rank_correlation(np.zeros(2), np.zeros(3))
