"""Intervals and tests. The unit of resampling is the question: all groups move together.

Shapes: G groups, X questions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Maps scores of shape (G, ..., X) to a number per (...): X is the axis of questions."""


def bootstrap_interval(
    scores_GX: NDArray[np.float64],
    statistic: Statistic,
    confidence: float,
    num_resamples: int,
    seed: int,
) -> list[float]:
    """Percentile interval [low, high] of `statistic` over resampled questions.

    By scipy.stats.bootstrap with paired=True. Percentile, not BCa: BCa is undefined where every
    question has the same score. An interval of a share of exactly 0 or 1 has no width: that says
    nothing about unseen questions.
    """
    if scores_GX.shape[1] < 2:
        return [float("nan"), float("nan")]
    result = stats.bootstrap(
        tuple(scores_GX),
        lambda *rows, axis: statistic(np.stack(rows)) if axis == -1 else np.nan,
        paired=True,
        vectorized=True,
        axis=-1,
        confidence_level=confidence,
        n_resamples=num_resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def group_gap(scores_GX: NDArray[np.float64]) -> float:
    """Largest minus smallest group mean."""
    means = scores_GX.mean(-1)
    return float(means.max(0) - means.min(0))


def gap_null(
    scores_GX: NDArray[np.float64], num_permutations: int, seed: int
) -> tuple[float, float]:
    """Mean gap if groups were exchangeable within questions, and the permutation p of the gap.

    A gap is biased upward: equal groups show one too.
    p = (1 + #{null >= seen}) / (1 + permutations).
    """
    generator = np.random.default_rng(seed)
    observed = group_gap(scores_GX)
    null = np.array(
        [group_gap(generator.permuted(scores_GX, axis=0)) for _ in range(num_permutations)]
    )
    p_value = (1 + int((null >= observed - 1e-12).sum())) / (1 + num_permutations)
    return float(null.mean()), p_value


def cochran_q(correct_GX: NDArray[np.bool_]) -> float:
    """p of Cochran's Q: are accuracies equal? 1.0 where no question tells groups apart."""
    from statsmodels.stats.contingency_tables import cochrans_q

    if len(correct_GX) < 2 or (correct_GX == correct_GX[:1]).all():
        return 1.0
    return float(cochrans_q(correct_GX.T.astype(int)).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's method, in their order."""
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return []
    corrected: Any = multipletests(p_values, method="holm")
    return [float(p) for p in corrected[1]]


def mcnemar_holm(before_GX: NDArray[np.bool_], after_GX: NDArray[np.bool_]) -> list[float]:
    """Exact McNemar p of every group's change, corrected over the groups by Holm's method."""
    from statsmodels.stats.contingency_tables import mcnemar

    raw = []
    for before, after in zip(before_GX, after_GX, strict=True):
        gained, lost = int((~before & after).sum()), int((before & ~after).sum())
        test: Any = mcnemar([[0, gained], [lost, 0]], exact=True)
        raw.append(float(test.pvalue))
    return holm(raw)
