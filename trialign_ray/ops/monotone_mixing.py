"""What value factorisation can say of a two-player payoff: the best additive and monotone fits.

QMIX and VDN choose each agent's action from its own utility; a payoff whose best joint action
loses as soon as one player leaves it is beyond them (QPLEX, arXiv 2008.01062).

Shapes: A actions of the first player, B of the second, S upper sets, C cells (A * B).
"""

from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations

import numpy as np
from numpy.typing import NDArray

from trialign_ray.errors import ShapeError

Matrix = NDArray[np.float64]

MIN_GAIN = 1e-9
"""An ordering must lower the error by this share of it to replace an earlier one."""


@dataclass(frozen=True)
class PayoffFit:
    """`sse` is the sum of squared errors; `greedy` the true payoff of the fit's best action.

    Where several actions are best in the fit, `greedy` is that of the first one by rows.
    """

    fitted_AB: Matrix
    sse: float
    greedy: float


def _fit(payoff_AB: Matrix, fitted_AB: Matrix) -> PayoffFit:
    sse = float(np.square(fitted_AB - payoff_AB).sum())
    return PayoffFit(fitted_AB, sse, float(payoff_AB.flat[fitted_AB.argmax()]))


def _checked(payoff_AB: Matrix) -> Matrix:
    payoff = np.asarray(payoff_AB, dtype=np.float64)
    if payoff.ndim != 2 or not payoff.size:
        raise ShapeError(f"payoff of shape {payoff.shape}: expected a matrix (actions, actions)")
    return payoff


def additive_fit(payoff_AB: Matrix) -> PayoffFit:
    """Least-squares fit Q(a, b) = Q1(a) + Q2(b): row mean + column mean - mean.

    Source: value decomposition networks, Sunehag et al. 2017, arXiv 1706.05296.
    """
    payoff = _checked(payoff_AB)
    fitted = payoff.mean(1, keepdims=True) + payoff.mean(0, keepdims=True) - payoff.mean()
    return _fit(payoff, fitted)


def monotone_fit(payoff_AB: Matrix) -> PayoffFit:
    """Least-squares fit Q(a, b) = f(Q1(a), Q2(b)), f not decreasing in either, exactly.

    Source: QMIX, Rashid et al. 2018, arXiv 1803.11485, for a mixing network of any size. Utilities
    matter only by the order that they give to each player's actions, so every pair of orders is
    tried, each an isotonic regression on the product order. For small matrices: A! B! orders.
    """
    payoff = _checked(payoff_AB)
    best: PayoffFit | None = None
    upper_SC = _upper_sets(*payoff.shape)
    for rows in permutations(range(payoff.shape[0])):
        for columns in permutations(range(payoff.shape[1])):
            order = np.ix_(rows, columns)
            fitted = np.empty_like(payoff)
            fitted[order] = _isotonic(payoff[order], upper_SC)
            fit = _fit(payoff, fitted)
            if best is None or fit.sse < best.sse * (1 - MIN_GAIN):
                best = fit
    assert best is not None
    return best


def _upper_sets(num_rows: int, num_columns: int) -> NDArray[np.bool_]:
    """Membership of cells (row-major) in every upper set of the grid, shape (S, A * B).

    An upper set holds, from row to row, a growing number of the last columns.
    """
    column = np.arange(num_columns)
    sizes = combinations_with_replacement(range(num_columns + 1), num_rows)
    sets = [(column >= num_columns - np.array(size)[:, None]).ravel() for size in sizes]
    return np.array(sets)


def _isotonic(payoff_AB: Matrix, upper_SC: NDArray[np.bool_]) -> Matrix:
    """The nearest matrix that decreases along no row and no column, by the min-max formula.

    fit(c) = max over upper sets U with c, min over upper sets V without c, of the mean over
    U minus V (Robertson, Wright and Dykstra 1988, "Order restricted statistical inference").
    In closed form, because the cone's generators are linearly dependent and non-negative least
    squares on them can stop early.
    """
    between_SSC = upper_SC[:, None] & ~upper_SC[None]
    count_SS = between_SSC.sum(-1)
    mean_SS = between_SSC @ payoff_AB.ravel() / np.maximum(count_SS, 1)
    fitted = [mean_SS[holds][:, ~holds].min(1).max() for holds in upper_SC.T]
    return np.reshape(fitted, payoff_AB.shape)
