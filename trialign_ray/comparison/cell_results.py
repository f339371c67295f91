"""One finished cell of a comparison, read from its `cell.json`.

Shapes: G groups, X questions with a known answer, A questions whose style is checked (A >= X).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trialign_ray.comparison.methods import OURS
from trialign_ray.comparison.worlds import World
from trialign_ray.errors import DataError

BEHAVIOUR = "behaviour"
"""The deployed model, whose style is the bar that a repaired one must keep."""
BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError)
"""What reading a damaged file may raise."""


@dataclass(frozen=True)
class SplitMetrics:
    """One split in numbers. Shares in [0, 1]; jsd in nats. None: was not measured.

    adherence_*_worst: style of the worst-served group, by prompt; None also where no group has
    rules. unparsed, abstained: mean share of a group's answers; both count as wrong.
    """

    worst_truth: float
    mean_truth: float
    gap: float
    all_correct: float
    all_agree: float
    agree_and_wrong: float
    truth_given_known: float
    jsd: float | None
    adherence_explicit_worst: float | None
    adherence_implicit_worst: float | None
    unparsed: float
    abstained: float


@dataclass(frozen=True)
class SplitResult:
    """What a cell answered on one split. answers: by group, then question; None in results that
    have only right and wrong. adherence_GA is of the first prompt mode, the explicit one."""

    metrics: SplitMetrics
    groups: tuple[str, ...]
    question_ids: tuple[str, ...]
    correct_GX: NDArray[np.bool_]
    adherence_GA: NDArray[np.bool_]
    answers: tuple[tuple[str, ...], ...] | None


@dataclass(frozen=True)
class CellResult:
    """A finished cell. truth_heads: its report on the truth heads, of our own method alone.
    git_commit: of the code that made it, if known."""

    world: World
    method: str
    setting: int
    overrides: tuple[str, ...]
    splits: Mapping[str, SplitResult]
    wall_s: float
    truth_heads: Mapping[str, Any] | None
    git_commit: str | None = None

    @property
    def name(self) -> str:
        return f"{self.world.name}/{self.method}.{self.setting}"

    @property
    def test(self) -> SplitResult:
        return self.splits["test"]


def read_cell(path: Path) -> CellResult:
    """The result in a `cell.json`. Raises: DataError, naming the file."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        cell = CellResult(
            World(**tree["world"]),
            tree["method"],
            int(tree["setting"]),
            tuple(tree["overrides"]),
            {split: _split(tree["splits"][split]) for split in ("validation", "test")},
            float(tree["wall_s"]),
            _truth_heads(path.parent) if tree["method"] == OURS else None,
            tree.get("git_commit"),
        )
        if not path.parent.as_posix().endswith(f"/{cell.name}"):
            raise ValueError(f"it says that it is {cell.name}")
    except BROKEN as error:
        raise DataError(
            f"{path} is no result of a cell ({type(error).__name__}: {error}); remove its folder "
            "and go on with `trialign compare --resume`"
        ) from error
    return cell


def _truth_heads(folder: Path) -> Mapping[str, Any] | None:
    path = folder / "critic" / "report.json"
    if not path.is_file():
        return None
    report = json.loads(path.read_text(encoding="utf-8"))
    return {key: report[key] for key in ("heads", "vote_accuracy", "coverage")}


def _split(tree: Mapping[str, Any]) -> SplitResult:
    per_question = tree["per_question"]
    groups, ids = tuple(per_question["correct"]), tuple(per_question["question_ids"])
    answers = per_question.get("answer")
    if answers is not None:
        answers = tuple(tuple(map(str, answers[g])) for g in groups)
    correct_GX = _matrix(per_question["correct"], groups)
    if correct_GX.shape[1] != len(ids) or any(len(row) != len(ids) for row in answers or ()):
        raise ValueError(f"{len(ids)} question ids, but other numbers of answers")
    adherence_GA = _style_matrix(per_question["adherence"], groups)
    return SplitResult(_metrics(tree), groups, ids, correct_GX, adherence_GA, answers)


def _matrix(by_group: Mapping[str, Any], groups: tuple[str, ...]) -> NDArray[np.bool_]:
    rows = np.array([by_group[g] for g in groups])
    if rows.ndim != 2 or 0 in rows.shape or not np.isin(rows, (0, 1)).all():
        raise ValueError("per-question records are not 0 or 1, equally many for every group")
    return rows.astype(bool)


def _style_matrix(by_group: Mapping[str, Any], groups: tuple[str, ...]) -> NDArray[np.bool_]:
    """A group without style rules (None) breaks none: so it neither is the worst nor falls."""
    length = max((len(row) for row in by_group.values() if row is not None), default=1)
    return _matrix(
        {g: [1] * length if by_group[g] is None else by_group[g] for g in groups}, groups
    )


def _metrics(tree: Mapping[str, Any]) -> SplitMetrics:
    truth, consistency, adherence = tree["truth"], tree["consistency"], tree["adherence"]
    worst = {mode: own["worst"] for mode, own in adherence.items()}
    shares = {k: float("nan") if v is None else v for k, v in consistency.items() if k != "ci"}
    return SplitMetrics(
        worst_truth=float(truth["worst"]),
        mean_truth=float(truth["mean"]),
        gap=float(truth["gap"]),
        all_correct=float(shares["all_correct"]),
        all_agree=float(shares["all_agree"]),
        agree_and_wrong=float(shares["agree_and_wrong"]),
        truth_given_known=float(shares["truth_given_known"]),
        jsd=consistency["jsd"],
        adherence_explicit_worst=worst.get("explicit"),
        adherence_implicit_worst=worst.get("implicit"),
        unparsed=float(np.mean(list(truth["unparsed"].values()))),
        abstained=float(np.mean(list(truth["abstained"].values()))),
    )
