"""Beside the rows: the trade-off that each method's settings span, and the truth heads' scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trialign_ray.comparison.cell_results import CellResult
from trialign_ray.comparison.methods import Method
from trialign_ray.comparison.results import Results
from trialign_ray.ops.pareto import hypervolume

HEAD_SCORES = ("accuracy", "brier", "ece", "log_loss")


@dataclass(frozen=True)
class Sweep:
    """A method's settings in the tuning world, on test. points: worst group's truth and style
    (explicit) of every setting. volume: the area that they dominate above (0, 0)."""

    method: Method
    points: tuple[tuple[float, float], ...]
    volume: float


@dataclass(frozen=True)
class HeadLine:
    """A truth head, or a bar that it must clear, on hidden-gold questions of the log: means over
    the seeds in which it knows anything. log_loss in nats; None: it has no such score."""

    head: str
    num_seeds: int
    accuracy: float | None
    brier: float | None = None
    ece: float | None = None
    log_loss: float | None = None


def sweeps(results: Results) -> tuple[Sweep, ...]:
    """Every method's sweep, largest area first; a method without a choice has one point."""
    points: dict[str, list[tuple[float, float]]] = {}
    for cell in results.cells:
        style = cell.test.metrics.adherence_explicit_worst
        if cell.world.name == results.tuning_world and style is not None:
            points.setdefault(cell.method, []).append((cell.test.metrics.worst_truth, style))
    found = [
        Sweep(method, tuple(points[name]), hypervolume(np.array(points[name]), np.zeros(2)))
        for name, method in results.methods.items()
        if name in points
    ]
    return tuple(sorted(found, key=lambda sweep: -sweep.volume))


def head_lines(cells: Sequence[CellResult]) -> tuple[HeadLine, ...]:
    """Truth heads of our method's cells, then the plain vote and the coverage."""
    reports = [cell.truth_heads for cell in cells if cell.truth_heads]
    names = list(dict.fromkeys(name for report in reports for name in report["heads"]))
    lines = [
        _line(name, [r["heads"][name] for r in reports if name in r["heads"]]) for name in names
    ]
    for title, key in (("(plain vote)", "vote_accuracy"), ("(someone said it)", "coverage")):
        values = [r[key] for r in reports if r[key] is not None]
        if values:
            lines.append(HeadLine(title, len(values), float(np.mean(values))))
    return tuple(lines)


def _line(name: str, scores: Sequence[Mapping[str, float | None]]) -> HeadLine:
    known = [s for s in scores if s["accuracy"] is not None]
    means = {key: _mean([s[key] for s in known]) for key in HEAD_SCORES}
    return HeadLine(name, len(known), **means)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
