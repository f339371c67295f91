"""A run's result in few numbers: what the terminal, report.md and report.html all show."""

import json
from dataclasses import dataclass
from typing import Any

from trialign_ray.progress import read_metrics
from trialign_ray.run_directory import RunDirectory

UNKNOWN = "–"
LEARNED_STYLE = 0.5
"""Adherence below which a group's style counts as never learned."""
ADHERENCE_MARGIN = 0.02
"""Non-inferiority margin of style adherence, in share of answers."""


@dataclass(frozen=True)
class GroupLine:
    """One group before (behaviour model) and after (aligned): truth with intervals, adherence (None
    for a group without style rules)."""

    group: str
    truth_before: float
    truth_before_ci: tuple[float, float]
    truth_after: float
    truth_after_ci: tuple[float, float]
    style_before: float | None
    style_after: float | None

    @property
    def style_kept(self) -> str:
        """ "yes" or "no"; "had none" where the personalized model had not learned the style, "no
        rules" where the group has no style that could be checked."""
        if self.style_before is None or self.style_after is None:
            return "no rules"
        if self.style_before < LEARNED_STYLE:
            return "had none"
        kept = self.style_after >= self.style_before - ADHERENCE_MARGIN
        return "yes" if kept else "no"


@dataclass(frozen=True)
class Summary:
    """Per-group lines, worst first, and the metrics that belong to all groups at once."""

    lines: tuple[GroupLine, ...]
    shared: tuple[tuple[str, float, float], ...]
    num_truth_questions: int
    seconds_by_stage: dict[str, float]

    @property
    def worst_before(self) -> float:
        return min(line.truth_before for line in self.lines)

    @property
    def worst_after(self) -> float:
        return min(line.truth_after for line in self.lines)


SHARED_METRICS = (
    ("all groups right", "all_correct"),
    ("all groups agree", "all_agree"),
    ("agree and wrong", "agree_and_wrong"),
    ("right for all, if right for any", "truth_given_known"),
    ("divergence of answers (nats)", "jsd"),
)


def summarise(evaluation: dict[str, Any], run: RunDirectory) -> Summary:
    """The summary of `evaluation.json`."""
    before, after = evaluation["models"]["behaviour"], evaluation["models"]["aligned"]
    mode = next(iter(after["adherence"]))
    lines = [
        GroupLine(
            group,
            before["truth"]["by_group"][group],
            tuple(before["truth"]["ci"]["by_group"][group]),
            after["truth"]["by_group"][group],
            tuple(after["truth"]["ci"]["by_group"][group]),
            before["adherence"][mode]["by_group"][group],
            after["adherence"][mode]["by_group"][group],
        )
        for group in after["truth"]["by_group"]
    ]
    shared = [
        (label, _number(before["consistency"][key]), _number(after["consistency"][key]))
        for label, key in SHARED_METRICS
    ]
    return Summary(
        lines=tuple(sorted(lines, key=lambda line: line.truth_before)),
        shared=tuple(shared),
        num_truth_questions=len(after["per_question"]["question_ids"]),
        seconds_by_stage=_seconds(run),
    )


def digits(value: float | None) -> str:
    """A share as text; a dash where there is nothing to know."""
    return UNKNOWN if value is None else f"{value:.3f}"


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _seconds(run: RunDirectory) -> dict[str, float]:
    """Wall time of each stage, the last time that it ran."""
    seconds: dict[str, float] = {}
    for record in read_metrics(run.root):
        for name, value in record.items():
            if name.endswith("/wall_s"):
                stage = name.removesuffix("/wall_s")
                seconds[stage] = value
    return seconds


def read_evaluation(run: RunDirectory) -> dict[str, Any]:
    """evaluation.json. Raises: DataError if the run has none."""
    from trialign_ray.errors import DataError

    if not run.evaluation_file.is_file():
        raise DataError(
            f"{run.root} has no evaluation.json; run `trialign evaluate {run.root}` first"
        )
    return json.loads(run.evaluation_file.read_text(encoding="utf-8"))
