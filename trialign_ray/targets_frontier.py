"""The frontier of a sweep: which settings nothing beats, which to prefer, which to train.

Shapes: N points, M objectives (all maximised).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trialign_ray.errors import ConfigError
from trialign_ray.ops.pareto import hypervolume, pareto_mask, rank_correlation
from trialign_ray.targets_prediction import Prediction
from trialign_ray.targets_sweep import Point

Floats = NDArray[np.float64]
RESOLUTION = 3
"""Decimals to which promises are told apart; the solver's certificate is finer."""
TOLERATED_LOSS = 0.02
"""How much personalization a group may lose against the log, and worst truth against the best."""


@dataclass(frozen=True)
class Recommendation:
    """The setting for a preference. index: the point's place in the sweep; None: every setting
    takes from some group what it had."""

    name: str
    preference: str
    index: int | None


@dataclass(frozen=True)
class Frontier:
    """Indices of points, by worst-group truth from high to low. pareto: nothing beats them in worst
    truth, worst personalization and consistency together; line: nor in the first two alone.
    hypervolume: of `line`, above (0, 0)."""

    pareto: tuple[int, ...]
    line: tuple[int, ...]
    hypervolume: float
    recommended: tuple[Recommendation, ...]


def objectives(predictions: Sequence[Prediction]) -> Floats:
    """Worst truth, worst personalization and minus inconsistency, rounded, shape (N, 3)."""
    rows = [(p.worst_truth, p.worst_personalization, -p.inconsistency) for p in predictions]
    return np.round(np.array(rows, dtype=np.float64).reshape(-1, 3), RESOLUTION)


def find_frontier(points: Sequence[Point], log: Prediction) -> Frontier:
    """What the solved points offer. Args: log: what the log's own mixture promises."""
    solved = [i for i, p in enumerate(points) if p.prediction is not None]
    kept = [i for i in solved if keeps_what_was(points[i].promise, log)]
    values_N3 = objectives([points[i].promise for i in solved])
    return Frontier(
        pareto=tuple(solved[n] for n in _front(values_N3)),
        line=tuple(solved[n] for n in _front(values_N3[:, :2])),
        hypervolume=hypervolume(values_N3[:, :2], np.zeros(2)),
        recommended=_recommended(kept, objectives([points[i].promise for i in kept])),
    )


def _front(values_NM: Floats) -> list[int]:
    """Places on the Pareto front, of equal points the first, from high to low."""
    places = np.flatnonzero(pareto_mask(values_NM))
    _, first = np.unique(values_NM[places], axis=0, return_index=True)
    return sorted(places[first].tolist(), key=lambda n: (*(-values_NM[n]).tolist(), n))


def keeps_what_was(prediction: Prediction, log: Prediction) -> bool:
    """The guard of ALGORITHM, section 7: no group below the log in truth, nor more than 2 points
    below it in personalization. A group of which nobody knows the figure does not speak against."""
    pairs = (
        (prediction.truth, log.truth, 0.0),
        (prediction.personalization, log.personalization, TOLERATED_LOSS),
    )
    return all(
        after[group] >= before[group] - loss
        for after, before, loss in pairs
        for group in after.keys() & before.keys()
    )


def _recommended(kept: list[int], values_N3: Floats) -> tuple[Recommendation, ...]:
    """One point per preference, of those that keep what every group had."""
    preferences = (
        ("most truth", "highest worst-group truth", _most_truth),
        ("knee", "from here on more truth costs the most personalization", knee),
        ("same facts", "least inconsistency, worst-group truth within 2 points of the best", _same),
    )
    return tuple(
        Recommendation(name, preference, kept[choose(values_N3)] if kept else None)
        for name, preference, choose in preferences
    )


def _most_truth(values_N3: Floats) -> int:
    return _best(values_N3, (0, 2, 1))


def _same(values_N3: Floats) -> int:
    near = np.flatnonzero(values_N3[:, 0] >= values_N3[:, 0].max() - TOLERATED_LOSS)
    return int(near[_best(values_N3[near], (2, 1, 0))])


def _best(values_N3: Floats, order: tuple[int, ...]) -> int:
    """The first point that is best in these objectives, the first of them counting first."""
    ranked = [tuple(row[m] for m in order) for row in values_N3]
    return ranked.index(max(ranked))


def knee(values_N3: Floats) -> int:
    """The point of the 2-D front that is farthest from the chord between its ends, each objective
    scaled to [0, 1] on the front (Das 1999, "On characterizing the 'knee' of the Pareto curve based
    on normal-boundary intersection", doi 10.1007/BF01195985); the chord is t + p = 1."""
    front = _front(values_N3[:, :2])
    return front[int(scaled(values_N3[front, :2]).sum(1).argmax())]


def scaled(values_NM: Floats) -> Floats:
    """Each objective from 0 (the worst of these points) to 1 (the best)."""
    span_M = np.ptp(values_NM, axis=0)
    return (values_NM - values_NM.min(0)) / np.where(span_M > 0, span_M, 1.0)


def chosen_to_train(points: Sequence[Point], frontier: Frontier, count: int) -> list[int]:
    """Points that show whether promises hold: two thirds spread along the Pareto line, the rest
    over all points, so that bad promises are tested too.

    Greedy farthest-point selection (Gonzalez 1985, doi 10.1016/0304-3975(85)90224-5) in the three
    objectives, each scaled to [0, 1], from the point recommended for truth. Raises: ConfigError.
    """
    solved = [i for i, p in enumerate(points) if p.prediction is not None]
    if not 1 <= count <= len(solved):
        raise ConfigError(
            f"{count} points to train, of {len(solved)} that have a solution; expected 1 to "
            f"{len(solved)}"
        )
    scaled_N3 = scaled(objectives([points[i].promise for i in solved]))
    first = frontier.recommended[0].index
    chosen = [solved.index(frontier.line[0] if first is None else first)]
    for among, until in (
        (frontier.line, count - count // 3),
        (frontier.pareto, count - count // 3),
        (tuple(solved), count),
    ):
        chosen = farthest_first(scaled_N3, [solved.index(i) for i in among], chosen, until)
    return [solved[n] for n in chosen]


def farthest_first(
    values_NM: Floats, allowed: list[int], chosen: list[int], count: int
) -> list[int]:
    """`chosen` and the allowed places farthest from all chosen before, up to `count` in all."""
    chosen = list(chosen)
    while len(chosen) < count:
        free = [n for n in allowed if n not in chosen]
        if not free:
            break
        gaps = values_NM[free][:, None] - values_NM[chosen]
        chosen.append(free[int(np.linalg.norm(gaps, axis=-1).min(1).argmax())])
    return chosen


def rank_agreement(promised: Sequence[float], realised: Sequence[float]) -> float | None:
    """Spearman's rho of promises and what came of them; None where a side is constant."""
    rho = rank_correlation(np.array(promised), np.array(realised))
    return None if math.isnan(rho) else rho
