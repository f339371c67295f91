"""Choosing a trial on validation: by a lower bound of welfare, never at a group's expense.

Shapes: G groups, X validation questions (A, for adherence, may be more of them), B resamples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trialign_ray.errors import DataError
from trialign_ray.ops.statistics import bootstrap_interval
from trialign_ray.ops.welfare import extended_log

WelfareFunction = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Maps truth by group, shape (G, ...), to welfare, shape (...)."""
ROUNDING = 1e-12


def log_nash(truth_G: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over groups (axis 0) of the extended logarithm of truth: `ops.welfare.LogNash`."""
    return extended_log(torch.as_tensor(truth_G)).mean(0).numpy()


@dataclass(frozen=True)
class Trial:
    """One trained policy on validation: its settings and, per question, what came out.

    correct_GX, adherence_GA: bool. inconsistency_X: >= 0, such as the share of pairs of groups that
    disagree. Questions stand in the same order in every trial.
    """

    name: str
    settings: Mapping[str, Any]
    correct_GX: NDArray[np.bool_]
    adherence_GA: NDArray[np.bool_]
    inconsistency_X: NDArray[np.float64]


@dataclass(frozen=True)
class SelectionRule:
    """The score W(truth) - penalty_weight * D and the guards, all declared before anything is seen.

    truth_margin, adherence_margin: by how much a group may fall below the baseline (share of
    questions). require_gain: a winner's paired gain over the baseline has a lower bound above 0.
    confidence: of the one-sided lower bounds.
    """

    penalty_weight: float
    welfare: WelfareFunction = log_nash
    truth_margin: float = 0.0
    adherence_margin: float = 0.02
    require_gain: bool = True
    confidence: float = 0.95
    num_resamples: int = 1000


@dataclass(frozen=True)
class ScoredTrial:
    """lcb: lower bound of the score. gain, gain_lcb: over the baseline, paired by question.
    excluded: why it may not win; empty if it may."""

    trial: Trial
    score: float
    lcb: float
    gain: float
    gain_lcb: float
    excluded: tuple[str, ...]

    def as_row(self) -> dict[str, Any]:
        """Everything but the per-question record, for a table or JSON."""
        return {
            "name": self.trial.name,
            "settings": dict(self.trial.settings),
            "score": self.score,
            "lcb": self.lcb,
            "gain": self.gain,
            "gain_lcb": self.gain_lcb,
            "excluded": list(self.excluded),
        }


@dataclass(frozen=True)
class Selection:
    """The winner, which is the behaviour baseline where `beats_baseline` is false; every trial,
    best lower bound first, excluded ones included."""

    winner: ScoredTrial
    beats_baseline: bool
    baseline: ScoredTrial
    trials: tuple[ScoredTrial, ...] = field(default=())

    @property
    def reason(self) -> str:
        """One sentence for the report."""
        if self.beats_baseline:
            return (
                f"{self.winner.trial.name} has the best lower bound, {self.winner.lcb:.3f}, of "
                f"{len(self.trials)} trials"
            )
        why = "; ".join(f"{t.trial.name}: {', '.join(t.excluded)}" for t in self.trials)
        return f"nothing beats the baseline {self.baseline.trial.name} ({why or 'no trials'})"


def select(
    candidates: Sequence[Trial],
    baseline: Trial,
    groups: Sequence[str],
    rule: SelectionRule,
    *,
    seed: int,
) -> Selection:
    """The candidate with the highest lower confidence bound of W(truth) - lambda D among those that
    serve no group worse than `baseline`, the behaviour policy; else the baseline itself.

    Bounds by bootstrap over questions, all groups together, the same resamples for every trial;
    they are not corrected for the number of trials. Equal bounds: the earlier trial.
    Raises: DataError if trials are not on the baseline's groups and questions.
    """
    _check(candidates, baseline, groups)
    own = _scored(baseline, baseline, groups, rule, seed)
    scored = [_scored(trial, baseline, groups, rule, seed) for trial in candidates]
    ranked = tuple(sorted(scored, key=lambda t: -t.lcb))
    allowed = [t for t in ranked if not t.excluded]
    baseline_score = ScoredTrial(baseline, own.score, own.lcb, 0.0, 0.0, ())
    winner = allowed[0] if allowed else baseline_score
    return Selection(winner, bool(allowed), baseline_score, ranked)


def _scored(
    trial: Trial, baseline: Trial, groups: Sequence[str], rule: SelectionRule, seed: int
) -> ScoredTrial:
    num_groups = len(groups)

    def score(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        mean = rows.mean(-1)
        return rule.welfare(mean[:num_groups]) - rule.penalty_weight * mean[num_groups]

    def gain(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return score(rows[: num_groups + 1]) - score(rows[num_groups + 1 :])

    def lower(rows: NDArray[np.float64], statistic: Any) -> float:
        both_sides = 2 * rule.confidence - 1  # the lower end of it is the one-sided bound
        return bootstrap_interval(rows, statistic, both_sides, rule.num_resamples, seed % 2**32)[0]

    own = _rows(trial)
    both = np.concatenate([own, _rows(baseline)])
    point, gain_lcb = float(gain(both)), lower(both, gain)
    excluded = _guards(trial, baseline, groups, rule)
    if rule.require_gain and not gain_lcb > 0:
        excluded.append(f"gain of {point:+.3f} is not sure, its lower bound is {gain_lcb:+.3f}")
    return ScoredTrial(
        trial, float(score(own)), lower(own, score), point, gain_lcb, tuple(excluded)
    )


def _rows(trial: Trial) -> NDArray[np.float64]:
    """Truth by group, then inconsistency: shape (G + 1, X)."""
    return np.concatenate([trial.correct_GX, trial.inconsistency_X[None]]).astype(np.float64)


def _guards(trial: Trial, baseline: Trial, groups: Sequence[str], rule: SelectionRule) -> list[str]:
    reasons = []
    for what, now, before, margin in (
        ("truth", trial.correct_GX, baseline.correct_GX, rule.truth_margin),
        ("adherence", trial.adherence_GA, baseline.adherence_GA, rule.adherence_margin),
    ):
        for group, after_X, before_X in zip(groups, now, before, strict=True):
            drop = float(before_X.mean() - after_X.mean())
            if drop > margin + ROUNDING:
                reasons.append(
                    f"{what} of {group} falls from {before_X.mean():.3f} to {after_X.mean():.3f}, "
                    f"more than {margin:g}"
                )
    return reasons


def _check(candidates: Sequence[Trial], baseline: Trial, groups: Sequence[str]) -> None:
    names = [t.name for t in (baseline, *candidates)]
    if len(set(names)) < len(names):
        raise DataError(f"trial names {names} repeat; give every trial a name of its own")
    num_questions = baseline.correct_GX.shape[-1]
    expected = (
        (len(groups), num_questions),
        (len(groups), baseline.adherence_GA.shape[-1]),
        (num_questions,),
    )
    for trial in (baseline, *candidates):
        found = (trial.correct_GX.shape, trial.adherence_GA.shape, trial.inconsistency_X.shape)
        if found != expected or num_questions < 2 or not expected[1][1]:
            raise DataError(
                f"trial {trial.name!r} has scores of shapes {found}; expected {expected} as the "
                f"baseline {baseline.name!r}, on the same 2 or more validation questions"
            )
        if not np.isfinite(trial.inconsistency_X).all():
            raise DataError(f"trial {trial.name!r} has an inconsistency that is not finite")
