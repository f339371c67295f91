"""What the report says beside the held-out figures: truth heads, estimates from the log, guard.

Rows hold text, ready to be shown; "–" stands where there is nothing to know.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trialign_ray.guard import guard_sentence
from trialign_ray.markdown_text import markdown_table
from trialign_ray.summary import UNKNOWN, digits


@dataclass(frozen=True)
class HeadRow:
    """A truth head on questions whose gold it never saw. configured: the run's own."""

    name: str
    configured: bool
    accuracy: str
    brier: str
    ece: str


@dataclass(frozen=True)
class EstimateRow:
    """One group's truth: what the log earned, what it says of the adapter, what was measured.

    off: the mean weight's interval excludes 1, which it should be. refused: why there is no
    estimate, in few words; empty where there is one.
    """

    group: str
    logged: str
    wis: str
    dr: str
    mean_weight: str
    off: bool
    ess: str
    refused: str
    fqe: str
    measured: str


HEAD_COLUMNS = ("truth head", "accuracy", "Brier score", "calibration error")
ESTIMATE_COLUMNS = (
    "group",
    "the log's answers",
    "adapter, WIS",
    "adapter, DR",
    "mean weight",
    "ESS",
    "adapter, FQE",
    "measured, test",
)
HOW_TO_READ = (
    "Estimated before anything was generated, from the first answers of the log weighed by how "
    "much likelier the adapter makes them (WIS; DR adds what the critic believes and may leave 0 "
    "to 1), with 95 % intervals; truth is the known answer or else the truth head's belief. These "
    "are training questions, sampled: expect the last column, held-out questions answered "
    "greedily, to be near, not equal. Do not trust a row whose mean weight is surely not 1 "
    "(marked): above it the adapter has learned the log's answers by heart, below it says what "
    "nobody logged. An estimate is refused where few logged answers carry the weight (effective "
    "sample size, ESS): that is no bad sign, only no evidence. FQE (fitted Q evaluation) is the "
    "critic's word, corrected by what the logged answers earned; it is never refused, and no "
    "better than that critic."
)


def head_rows(report: dict[str, Any] | None, configured: str) -> list[HeadRow]:
    """Heads in the order of their accuracy, best first; those that know nothing last."""
    heads = (report or {}).get("heads", {})
    ranked = sorted(heads, key=lambda name: -(heads[name]["accuracy"] or 0.0))
    return [
        HeadRow(
            name,
            name == configured,
            _percent(heads[name]["accuracy"]),
            digits(heads[name]["brier"]),
            digits(heads[name]["ece"]),
        )
        for name in ranked
    ]


def estimate_rows(
    estimates: dict[str, Any] | None, evaluation: dict[str, Any], groups: Sequence[str]
) -> list[EstimateRow]:
    """Off-policy estimates of truth beside what was measured; empty where the run has none."""
    if estimates is None:
        return []
    measured = evaluation["models"]["aligned"]["truth"]["by_group"]
    rows = []
    for group in groups:
        truth = estimates["groups"][group]["rewards"]["truth"]
        rows.append(
            EstimateRow(
                group=group,
                logged=digits(truth["behaviour"] and truth["behaviour"]["value"]),
                wis=_estimate(truth["wis"]),
                dr=_estimate(truth["dr"]),
                mean_weight=digits(truth["mean_weight"] and truth["mean_weight"]["value"]),
                off=_excludes_one(truth["mean_weight"]),
                ess=f"{truth['ess']:.1f}",
                refused=_refusal(truth, estimates),
                fqe=_estimate(truth["fqe"]),
                measured=digits(measured[group]),
            )
        )
    return rows


def _excludes_one(mean_weight: dict[str, Any] | None) -> bool:
    low, high = (mean_weight or {"ci": (None, None)})["ci"]
    return low is not None and not low <= 1 <= high


def _refusal(truth: dict[str, Any], estimates: dict[str, Any]) -> str:
    if not truth["refused"]:
        return ""
    if estimates["temperature"] != 1:
        return f"refused: the log was sampled at temperature {estimates['temperature']:g}, not 1"
    if not truth["num"]:
        return "refused: no answer of the log has a known or believed truth"
    return f"refused: ESS {truth['ess']:.1f} < {estimates['min_ess']:g}"


def section_lines(
    heads: Sequence[HeadRow], estimates: Sequence[EstimateRow], guard: dict[str, Any] | None
) -> list[str]:
    """The same as Markdown."""
    lines = [""]
    if guard:
        lines += ["## Guard on validation questions", "", guard_sentence(guard), ""]
    if heads:
        lines += ["## Truth heads, questions with hidden gold", ""]
        lines += [*markdown_table(HEAD_COLUMNS, map(_head_cells, heads)), ""]
    if estimates:
        lines += ["## Truth of the adapters, estimated from the log", ""]
        lines += markdown_table(ESTIMATE_COLUMNS, map(_estimate_cells, estimates))
        lines += ["", HOW_TO_READ, ""]
    return lines


def _head_cells(head: HeadRow) -> tuple[str, ...]:
    name = f"**{head.name}** (configured)" if head.configured else head.name
    return name, head.accuracy, head.brier, head.ece


def _estimate_cells(row: EstimateRow) -> tuple[str, ...]:
    weight = f"**{row.mean_weight}**" if row.off else row.mean_weight
    found = (row.refused, "", "", "") if row.refused else (row.wis, row.dr, weight, row.ess)
    return row.group, row.logged, *found, row.fqe, row.measured


def _estimate(estimate: dict[str, Any] | None) -> str:
    if estimate is None:
        return UNKNOWN
    low, high = estimate["ci"]
    if low is None:
        return digits(estimate["value"])
    return f"{estimate['value']:.3f} [{low:.2f}, {high:.2f}]"


def _percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{100 * value:.1f} %"
