"""Comparing two methods over training seeds: the seed is resampled outside, the question inside.

Questions of several seeds are never pooled as if they were independent: a seed moves all of its
questions at once.

Shapes: S seeds, G groups, X questions (seeds may differ in their number), B resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trialign_ray.errors import DataError, ShapeError
from trialign_ray.ops.statistics import Statistic

Floats = NDArray[np.float64]
Index = NDArray[np.int_]
Scores = Floats | NDArray[np.bool_]
Pairs = list[tuple[Floats, Floats]]


@dataclass(frozen=True)
class SeedDifference:
    """mean: of the seeds' differences B - A. interval: [low, high], nan for one seed, whose
    variance nobody knows. by_seed: each seed's own difference."""

    mean: float
    interval: list[float]
    by_seed: list[float]


def mean_accuracy(scores_GX: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over groups and questions of (G, ..., X), shape (...)."""
    return scores_GX.mean(-1).mean(0)


def worst_group(scores_GX: NDArray[np.float64]) -> NDArray[np.float64]:
    """The smallest group mean of (G, ..., X), shape (...)."""
    return scores_GX.mean(-1).min(0)


def all_correct(scores_GX: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of questions that every group is told rightly, from (G, ..., X), shape (...)."""
    return scores_GX.min(0).mean(-1)


def hierarchical_interval(
    first: Sequence[Scores],
    second: Sequence[Scores],
    statistic: Statistic,
    *,
    confidence: float,
    num_resamples: int,
    seed: int,
    shared_questions: bool = False,
) -> SeedDifference:
    """Difference statistic(second) - statistic(first), paired by seed and question.

    Source: Davison and Hinkley 1997, "Bootstrap methods", section 3.8; Bouthillier et al. 2021,
    arXiv 2103.03098, on why seeds are the outer level. Percentile interval of the mean over S seeds
    drawn with replacement, each with its questions drawn with replacement. It is too narrow by a
    factor of about sqrt((S - 1) / S): take at least 5 seeds.
    Args: first, second: by seed, scores of shape (G, X) of the two methods on the same questions.
    shared_questions: every seed is tested on the same questions, in the same order: one draw of
    questions then serves all seeds of a resample, for what is hard about them does not average out
    over seeds. Raises: ShapeError, DataError.
    """
    pairs = _paired(first, second, shared_questions)
    by_seed = [float(statistic(b) - statistic(a)) for a, b in pairs]
    if len(pairs) < 2 or any(a.shape[-1] < 2 for a, _ in pairs):
        return SeedDifference(float(np.mean(by_seed)), [float("nan")] * 2, by_seed)
    generator = np.random.default_rng(seed)
    drawn_BS = generator.integers(0, len(pairs), (num_resamples, len(pairs)))
    resample = _resample_shared if shared_questions else _resample_nested
    tail = (1 - confidence) / 2
    mean_B = resample(pairs, statistic, drawn_BS, generator).mean(-1)
    low, high = np.quantile(mean_B, [tail, 1 - tail])
    return SeedDifference(float(np.mean(by_seed)), [float(low), float(high)], by_seed)


def _resample_nested(
    pairs: Pairs, statistic: Statistic, drawn_BS: Index, generator: np.random.Generator
) -> Floats:
    """The difference of every drawn seed, each time on new questions of its own, (B, S)."""
    difference_BS = np.empty(drawn_BS.shape)
    for s, (a, b) in enumerate(pairs):
        chosen_BS = drawn_BS == s
        num_questions = a.shape[-1]
        index_NX = generator.integers(0, num_questions, (int(chosen_BS.sum()), num_questions))
        difference_BS[chosen_BS] = statistic(b[:, index_NX]) - statistic(a[:, index_NX])
    return difference_BS


def _resample_shared(
    pairs: Pairs, statistic: Statistic, drawn_BS: Index, generator: np.random.Generator
) -> Floats:
    """The difference of every drawn seed, on the one draw of questions of its resample, (B, S)."""
    num_questions = pairs[0][0].shape[-1]
    index_BX = generator.integers(0, num_questions, (len(drawn_BS), num_questions))
    columns = [statistic(b[:, index_BX]) - statistic(a[:, index_BX]) for a, b in pairs]
    return np.take_along_axis(np.stack(columns, -1), drawn_BS, -1)


def _paired(first: Sequence[Scores], second: Sequence[Scores], shared: bool) -> Pairs:
    if len(first) != len(second) or not first:
        raise DataError(
            f"{len(first)} and {len(second)} seeds; expected the same seeds of both methods, >= 1"
        )
    pairs = [
        (np.asarray(a, float), np.asarray(b, float)) for a, b in zip(first, second, strict=True)
    ]
    for s, (a, b) in enumerate(pairs):
        if a.shape != b.shape or a.ndim != 2 or 0 in a.shape:
            raise ShapeError(
                f"seed number {s} (from 0) has scores of shapes {a.shape} and {b.shape}; expected "
                "one shape (G, X): the same groups and questions for both methods"
            )
    if shared and len({a.shape for a, _ in pairs}) > 1:
        raise ShapeError(
            f"shapes {[a.shape for a, _ in pairs]} by seed cannot be the same questions; leave "
            "shared_questions off, or keep only the questions that every seed was tested on"
        )
    return pairs
