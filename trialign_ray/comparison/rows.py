"""A row per method of a table: means over seeds, and the paired difference to our own method.

Shapes: G groups, X questions, A questions whose style is checked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trialign_ray.comparison.cell_results import BEHAVIOUR, CellResult, SplitResult
from trialign_ray.comparison.methods import OURS, Method
from trialign_ray.errors import DataError
from trialign_ray.ops.pareto import pareto_mask
from trialign_ray.ops.seeds_statistics import (
    SeedDifference,
    all_correct,
    hierarchical_interval,
    worst_group,
)
from trialign_ray.ops.statistics import Statistic
from trialign_ray.seeds import derive_seed
from trialign_ray.summary import ADHERENCE_MARGIN

CONFIDENCE = 0.95
NUM_RESAMPLES = 2000
ROUNDING = 1e-12
Verdict = Literal["behind", "ties", "beats", "one seed"]
BySeed = Mapping[int, CellResult]


@dataclass(frozen=True)
class Spread:
    """Mean, smallest and largest over seeds."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Versus:
    """Our method minus another, paired by seed and question: in the worst group's truth, in the
    share of questions that all groups are told rightly, and in the worst group's style under the
    explicit prompt (None where it was not asked for)."""

    truth: SeedDifference
    all_correct: SeedDifference
    style: SeedDifference | None

    @property
    def verdict(self) -> Verdict:
        """Of the other method: behind ours, ties it (the interval includes 0), or beats it."""
        low, high = self.truth.interval
        if isnan(low):
            return "one seed"
        return "behind" if low > 0 else "beats" if high < 0 else "ties"

    @property
    def marked(self) -> bool:
        """Whether the other method beats or ties ours; of one seed, by the difference itself."""
        if self.verdict == "one seed":
            return self.truth.mean <= 0
        return self.verdict in ("ties", "beats")

    @property
    def style_kept(self) -> bool | None:
        """Whether our style is not inferior to the other's: lower bound above -2 points."""
        if self.style is None or isnan(self.style.interval[0]):
            return None
        return self.style.interval[0] > -ADHERENCE_MARGIN


@dataclass(frozen=True)
class Row:
    """A method in one (knob, track), on test. truth, style: of the worst group; style under the
    explicit prompt, implicit under the other. versus: None for our own method, and where no seed is
    shared with it. keeps_style: within 2 points of the deployed
    model's mean, or there are no style rules. on_front: no method
    of the table has more truth and more style."""

    method: Method
    seeds: tuple[int, ...]
    truth: Spread
    mean_truth: float
    all_correct: float
    agree_and_wrong: float
    style: Spread | None
    implicit: float | None
    calls: int
    versus: Versus | None
    keeps_style: bool
    on_front: bool = False

    @property
    def marked(self) -> bool:
        return self.versus is not None and self.versus.marked


def make_rows(
    methods: Sequence[Method], cells: Mapping[str, BySeed], salt: tuple[str, ...]
) -> tuple[Row, ...]:
    """The rows of those methods that have cells, best worst-group truth first.

    Args: cells: by method, then seed. salt: names the table, and so seeds its resampling.
    Raises: DataError if two methods were asked different questions in one world.
    """
    bar = _style_bar(cells)
    rows = [_row(m, cells, bar, salt) for m in methods if cells.get(m.name)]
    placed = [(i, r.truth.mean, r.style.mean) for i, r in enumerate(rows) if r.style]
    mask = pareto_mask(np.array([p[1:] for p in placed])) if placed else []
    front = {placed[k][0] for k, kept in enumerate(mask) if kept}
    rows = [replace(row, on_front=i in front) for i, row in enumerate(rows)]
    return tuple(sorted(rows, key=lambda row: -row.truth.mean))


def _style_bar(cells: Mapping[str, BySeed]) -> float:
    """The mean style below which a method does not keep it: the deployed model's, less the margin;
    ours where that has no result; -inf without either."""
    for name in (BEHAVIOUR, OURS):
        style = _spread(cells.get(name, {}), "adherence_explicit_worst")
        if style:
            return style.mean - ADHERENCE_MARGIN - ROUNDING
    return -np.inf


def _row(method: Method, cells: Mapping[str, BySeed], bar: float, salt: tuple[str, ...]) -> Row:
    own = cells[method.name]
    truth, style = _spread(own, "worst_truth"), _spread(own, "adherence_explicit_worst")
    implicit = _spread(own, "adherence_implicit_worst")
    assert truth is not None
    num_groups = len(next(iter(own.values())).test.groups)
    return Row(
        method,
        tuple(sorted(own)),
        truth,
        _mean(own, "mean_truth"),
        _mean(own, "all_correct"),
        _mean(own, "agree_and_wrong"),
        style,
        implicit.mean if implicit else None,
        num_groups + 1 if method.calls is None else method.calls,
        None if method.name == OURS else _versus(own, cells.get(OURS, {}), (*salt, method.name)),
        style is None or style.mean >= bar,
    )


def _mean(cells: BySeed, metric: str) -> float:
    return float(np.mean([getattr(c.test.metrics, metric) for c in cells.values()]))


def _spread(cells: BySeed, metric: str) -> Spread | None:
    values = [getattr(c.test.metrics, metric) for c in cells.values()]
    if not values or None in values:
        return None
    return Spread(float(np.mean(values)), min(values), max(values))


def _versus(theirs: BySeed, ours: BySeed, salt: tuple[str, ...]) -> Versus | None:
    seeds = sorted(set(theirs) & set(ours))
    if not seeds:
        return None
    pairs = [(theirs[s], ours[s]) for s in seeds]
    truth = _difference(pairs, lambda split: split.correct_GX, worst_group, salt)
    together = _difference(pairs, lambda split: split.correct_GX, all_correct, salt)
    asked = all(c.test.metrics.adherence_explicit_worst is not None for p in pairs for c in p)
    style = None
    if asked:
        style = _difference(pairs, lambda split: split.adherence_GA, worst_group, salt)
    return Versus(truth, together, style)


def _difference(
    pairs: Sequence[tuple[CellResult, CellResult]],
    scores_of: Callable[[SplitResult], NDArray[np.bool_]],
    statistic: Statistic,
    salt: tuple[str, ...],
) -> SeedDifference:
    """Ours minus theirs in a statistic of (G, ..., X), with the hierarchical interval."""
    for a, b in pairs:
        same = a.test.question_ids == b.test.question_ids
        if not same or scores_of(a.test).shape != scores_of(b.test).shape:
            raise DataError(
                f"cells {a.name} and {b.name} were asked different questions on test; remove the "
                "one that was made with other settings and go on with `trialign compare --resume`"
            )
    first, second = ([scores_of(pair[k].test) for pair in pairs] for k in (0, 1))
    one_exam = len({a.test.question_ids for a, _ in pairs}) == 1
    return hierarchical_interval(
        first,
        second,
        statistic,
        confidence=CONFIDENCE,
        num_resamples=NUM_RESAMPLES,
        seed=derive_seed(0, "comparison", *salt) % 2**32,
        shared_questions=one_exam and len({scores.shape for scores in first}) == 1,
    )
