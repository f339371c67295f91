"""A frontier in the terminal: what nothing beats, what to prefer, which promises were kept."""

import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from trialign_ray.targets_prediction import Prediction
from tuning.frontier_grid import setting_name

if TYPE_CHECKING:
    from tuning.frontier import FrontierSummary

MAX_ROWS = 12


def show_frontier(summary: "FrontierSummary", console: Console) -> None:
    """Prints the Pareto line in short, the recommendations, and which promises were kept."""
    console.print(line_table(summary))
    console.print(
        f"on top of {summary.folder.parent / 'config.yaml'}:", highlight=False, soft_wrap=True
    )
    for line in recommended_lines(summary):
        console.print(line, highlight=False, soft_wrap=True)
    if summary.trained:
        console.print(trained_table(summary))
        for t in summary.broken:
            reason = f"not trained: {t.name}: {t.realised.failure}"
            console.print(reason, style="red", highlight=False, soft_wrap=True)
        for split, by_objective in summary.rank_correlation.items():
            rho = ", ".join(
                f"{name} {'undefined' if value is None else f'{value:.2f}'}"
                for name, value in by_objective.items()
            )
            console.print(f"rank correlation with what was promised, {split}: {rho}")
    failed = f", {len(summary.failed)} without a certified solution" if summary.failed else ""
    console.print(f"{len(summary.points)} settings in {summary.sweep_s:.0f} s{failed}")
    console.print(f"page: {summary.html}", highlight=False, soft_wrap=True)


def line_table(summary: "FrontierSummary") -> Table:
    """The Pareto line in truth and personalization, in short."""
    line = Table(
        title=f"Nothing beats these in truth and personalization ({len(summary.frontier.line)} of "
        f"{len(summary.points)} settings)",
        title_justify="left",
    )
    line.add_column("players, welfare", overflow="fold")
    for name in ("lambda", "beta", "worst truth", "worst pers.", "inconsistency"):
        line.add_column(name, justify="right", no_wrap=True)
    for label, weights, figures in line_rows(summary):
        line.add_row(label, *weights, *figures)
    return line


def recommended_lines(summary: "FrontierSummary") -> list[str]:
    """Each preference, and below it what to paste."""
    lines = []
    for r in summary.frontier.recommended:
        lines.append(f"{r.name}: {r.preference}")
        if r.index is None:
            lines.append("  no setting keeps what every group had")
            continue
        truth, liking, inconsistency = figures_of(summary.points[r.index].promise)
        lines[-1] += f" (truth {truth}, personalization {liking}, inconsistency {inconsistency})"
        lines.append(f"  {flags(summary, r.index)}")
    return lines


def trained_table(summary: "FrontierSummary") -> Table:
    """What the trained points were promised and what they are worth."""
    table = Table(title="Trained: promised, and realised on test questions", title_justify="left")
    table.add_column("setting", overflow="fold")
    for name in ("worst truth", "realised", "worst pers.", "realised", "adherence"):
        table.add_column(name, justify="right")
    for t in summary.trained:
        promise, realised = summary.points[t.index].promise, t.realised
        if realised.failure:
            continue
        figures = (
            promise.worst_truth,
            worst_of(realised.truth["test"]),
            promise.worst_personalization,
            worst_of(realised.personalization["test"]),
            worst_of(realised.adherence["test"]),
        )
        table.add_row(t.name, *(f"{value:.3f}" for value in figures))
    return table


def worst_of(by_group: dict[str, float]) -> float:
    """The least value; NaN where there is none."""
    return min(by_group.values(), default=math.nan)


def flags(summary: "FrontierSummary", index: int) -> str:
    """A point as options of the command line."""
    return " ".join(f"--set {override}" for override in summary.overrides[index])


def line_rows(summary: "FrontierSummary") -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Some of the Pareto line, evenly, its ends among them."""
    line = summary.frontier.line
    count = min(MAX_ROWS, len(line))
    places = [round(i * (len(line) - 1) / max(count - 1, 1)) for i in range(count)]
    rows = []
    for point in (summary.points[line[place]] for place in places):
        kept = {k: v for k, v in point.settings.items() if k not in ("kl_weight", "penalty_weight")}
        weights = (
            f"{point.settings.get('penalty_weight', math.nan):g}",
            f"{point.settings.get('kl_weight', math.nan):g}",
        )
        rows.append((setting_name(kept), weights, figures_of(point.promise)))
    return rows


def figures_of(promise: Prediction) -> tuple[str, str, str]:
    """Worst truth, worst personalization and inconsistency."""
    return (
        f"{promise.worst_truth:.3f}",
        f"{promise.worst_personalization:.3f}",
        f"{promise.inconsistency:.4f}",
    )
