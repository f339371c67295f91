"""Trade-offs between objectives that are all maximised: the front, its volume, rank agreement.

Shapes: N points, M objectives.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trialign_ray.errors import DataError, ShapeError

Floats = NDArray[np.float64]


def pareto_mask(points_NM: Floats) -> NDArray[np.bool_]:
    """Which points no other point dominates, bool, shape (N,).

    a dominates b if it is nowhere smaller and somewhere larger; of equal points each is kept.
    """
    points_NM = _points(points_NM)
    no_smaller_NN = (points_NM[:, None] >= points_NM[None]).all(-1)
    larger_NN = (points_NM[:, None] > points_NM[None]).any(-1)
    return np.logical_not((no_smaller_NN & larger_NN).any(0))


def hypervolume(points_NM: Floats, reference_M: Floats) -> float:
    """Volume that the points dominate above the reference, in the product of the units.

    Exact, by slicing along the last objective (While et al. 2006, IEEE TEC 10(1)): between two of
    its levels the slab is the volume of the points at or above it in the other objectives. A point
    that is not above the reference in every objective adds nothing. Time N^M: meant for M <= 3.
    """
    points_NM = _points(points_NM)
    reference_M = np.asarray(reference_M, dtype=np.float64)
    if reference_M.shape != points_NM.shape[1:]:
        raise ShapeError(
            f"the reference has shape {reference_M.shape}; expected {points_NM.shape[1:]}, one "
            "number per objective"
        )
    above_NM = points_NM[(points_NM > reference_M).all(-1)] - reference_M
    return _volume(above_NM[pareto_mask(above_NM)])


def _volume(points_NM: Floats) -> float:
    """Volume of the union of the boxes [0, point]."""
    if points_NM.shape[1] == 1:
        return float(points_NM.max(initial=0.0))
    ordered_NM = points_NM[np.argsort(-points_NM[:, -1], kind="stable")]
    level_N = ordered_NM[:, -1]
    depth_N = level_N - np.append(level_N[1:], 0.0)
    slabs = (d * _volume(ordered_NM[: i + 1, :-1]) for i, d in enumerate(depth_N) if d > 0)
    return float(sum(slabs))


def rank_correlation(first_N: Floats, second_N: Floats) -> float:
    """Spearman's rho, ties at their mean rank, in [-1, 1]; nan where a side is constant."""
    first_N, second_N = np.asarray(first_N, float), np.asarray(second_N, float)
    if first_N.ndim != 1 or first_N.shape != second_N.shape:
        raise ShapeError(f"shapes {first_N.shape} and {second_N.shape}: expected two equal (N,)")
    if len(first_N) < 2 or np.ptp(first_N) == 0 or np.ptp(second_N) == 0:
        return float("nan")
    result: Any = stats.spearmanr(first_N, second_N)
    return float(result.statistic)


def _points(points_NM: Floats) -> Floats:
    points = np.asarray(points_NM, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] == 0:
        raise ShapeError(f"points have shape {points.shape}; expected (N, M) with M >= 1")
    if not np.isfinite(points).all():
        raise DataError("points hold NaN or infinities; leave failed trials out before comparing")
    return points
