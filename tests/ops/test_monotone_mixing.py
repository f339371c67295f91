"""Known answers of the additive and the monotone fit of a payoff."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from trialign_ray.errors import ShapeError
from trialign_ray.ops.monotone_mixing import _isotonic, _upper_sets, additive_fit, monotone_fit

# QPLEX's matrix m3: 8 is best, and costs 20 as soon as one player leaves it.
M3 = np.array([[8.0, -12, -12], [-12, 6, 0], [-12, 0, 6]])
quick = settings(max_examples=25, deadline=None)
matrices = st.lists(st.floats(-5, 5), min_size=9, max_size=9).map(lambda v: np.reshape(v, (3, 3)))


def upper_sets(rows, columns):
    """Every set of cells that holds, with a cell, all cells of no smaller row and column."""
    cells = list(itertools.product(rows, columns))
    position = {c: (rows.index(c[0]), columns.index(c[1])) for c in cells}
    for chosen in itertools.product([False, True], repeat=len(cells)):
        members = {c for c, inside in zip(cells, chosen, strict=True) if inside}
        if all(
            d in members
            for c in members
            for d in cells
            if position[d][0] >= position[c][0] and position[d][1] >= position[c][1]
        ):
            yield members


def is_isotonic_fit(fitted, payoff, rows, columns):
    """Is `fitted` the best fit for these orders? By its optimality conditions.

    The fit f of y is monotone, y - f is orthogonal to f, and no upper set has a positive sum of
    y - f: the projection on a convex cone that the sets' indicators and constants generate.
    """
    ordered = fitted[np.ix_(rows, columns)]
    residual = payoff - fitted
    monotone = (np.diff(ordered, axis=0) >= -1e-9).all() and (np.diff(ordered) >= -1e-9).all()
    sums = [sum(residual[c] for c in members) for members in upper_sets(rows, columns)]
    return monotone and abs((residual * fitted).sum()) < 1e-9 and max(sums) < 1e-9


def test_the_additive_fit_of_m3():
    # Row and column means (-16, -6, -6)/3, mean -28/9: corner -32/3 + 28/9 = -68/9, edges
    # -22/3 + 28/9 = -38/9, rest -4 + 28/9 = -8/9. Errors in ninths: 140, 4 times 70, 2 times 62
    # and 2 times 8: (19600 + 19600 + 7688 + 128) / 81 = 47016 / 81 = 580.4444.
    fit = additive_fit(M3)
    assert fit.sse == pytest.approx(580.4444, abs=1e-4)
    expected = np.array([[-68, -38, -38], [-38, -8, -8], [-38, -8, -8]]) / 9
    np.testing.assert_allclose(fit.fitted_AB, expected)
    assert fit.greedy == 6.0


def test_the_monotone_fit_of_m3_misses_the_best_action():
    # 8 lies in the lowest row and column of any good order: 8 and four times -12 pool to -8
    # (16^2 + 4 * 4^2 = 320); one 6 and two 0 pool to 2 (4^2 + 2 * 2^2 = 24). Together 344.
    fit = monotone_fit(M3)
    np.testing.assert_allclose(fit.fitted_AB, [[-8, -8, -8], [-8, 2, 2], [-8, 2, 6]], atol=1e-9)
    assert fit.sse == pytest.approx(344.0)
    assert fit.greedy == 6.0 < M3.max()


def test_a_payoff_that_is_monotone_is_fitted_exactly():
    payoff = np.array([[0.0, 1, 5], [1, 4, 5], [2, 9, 30]])
    shuffled = payoff[[2, 0, 1]][:, [1, 2, 0]]
    fit = monotone_fit(shuffled)
    np.testing.assert_allclose(fit.fitted_AB, shuffled, atol=1e-9)
    assert fit.sse == pytest.approx(0.0, abs=1e-12) and fit.greedy == 30.0
    assert additive_fit(payoff).sse > 1.0


@pytest.mark.parametrize("seed", range(5))
def test_the_fit_is_optimal_for_some_order_and_others_are_worse(seed):
    payoff = np.random.default_rng(seed).integers(-3, 4, size=(2, 3)).astype(float)
    fit = monotone_fit(payoff)
    optimal = 0
    for rows in itertools.permutations(range(2)):
        for columns in itertools.permutations(range(3)):
            upper = _upper_sets(2, 3)
            ordered = _isotonic(payoff[np.ix_(rows, columns)], upper)
            fitted = np.empty_like(payoff)
            fitted[np.ix_(rows, columns)] = ordered
            assert is_isotonic_fit(fitted, payoff, rows, columns)
            assert fit.sse <= ((fitted - payoff) ** 2).sum() + 1e-9
            optimal += is_isotonic_fit(fit.fitted_AB, payoff, rows, columns)
    assert optimal >= 1


def test_upper_sets_are_counted_once():
    # Lattice paths through a 3 x 3 grid: 6! / (3! 3!) = 20
    assert len({tuple(row) for row in _upper_sets(3, 3).tolist()}) == 20
    assert len(list(upper_sets((0, 1, 2), (0, 1, 2)))) == 20


def test_degenerate_payoffs_are_fitted_exactly():
    # With 3 in the last corner, 2.5 pools with the two zeros above it: 6.25 - 2.5^2 / 3 = 4.17.
    # With 2.5 there, 3 pools with two zeros: 9 - 9 / 3 = 6. With the zero of 3's row and 2.5's
    # column there, all three pool: 15.25 - 5.5^2 / 3 = 5.17.
    payoff = np.array([[0, 2.5, 0], [0, 0, 0], [0, 0, 3.0]])
    assert monotone_fit(payoff).sse == pytest.approx(6.25 - 6.25 / 3)


@quick
@given(payoff=matrices, scale=st.floats(0.5, 3), shift=st.floats(-9, 9))
def test_fits_move_with_the_payoff_and_more_freedom_fits_no_worse(payoff, scale, shift):
    fit, additive = monotone_fit(payoff), additive_fit(payoff)
    assert fit.sse <= additive.sse + 1e-9
    assert monotone_fit(scale * payoff + shift).sse == pytest.approx(scale**2 * fit.sse, abs=1e-7)
    moved = payoff[[1, 2, 0]][:, [2, 1, 0]]
    assert monotone_fit(moved).sse == pytest.approx(fit.sse, abs=1e-8)
    assert monotone_fit(payoff.T).sse == pytest.approx(fit.sse, abs=1e-8)
    assert fit.fitted_AB.mean() == pytest.approx(payoff.mean(), abs=1e-8)


def test_one_row_in_the_given_order_is_isotonic_regression():
    payoff = np.array([[3.0, 1.0, 2.0, 5.0, 4.0]])
    expected = IsotonicRegression().fit_transform(np.arange(5), payoff[0])
    np.testing.assert_allclose(_isotonic(payoff, _upper_sets(1, 5))[0], expected)
    assert monotone_fit(payoff).sse == pytest.approx(0.0, abs=1e-12)  # any order is allowed


def test_a_payoff_that_is_no_matrix_is_refused():
    for payoff in (np.zeros(3), np.zeros((0, 2))):
        with pytest.raises(ShapeError, match="expected a matrix"):
            monotone_fit(payoff)
