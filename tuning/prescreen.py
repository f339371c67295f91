"""Before anything is trained: many points of a search space on the central problem alone.

A point is promising if few others are promised more truth, more personalization and more agreement
at once (non-dominated sorting, Deb et al. 2002, doi 10.1109/4235.996017). Those that are trained
lie far apart on the promised front, so that they show it whole.

Shapes: N points, M objectives.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import ConfigError
from trialign_ray.config import Config
from trialign_ray.targets_frontier import farthest_first, objectives, pareto_mask, scaled
from trialign_ray.targets_prediction import (
    METHOD,
    FittedCritic,
    Prediction,
    SweptLog,
    read_critic,
    swept_log,
)
from trialign_ray.targets_sweep import one_torch_thread, solve_chain
from tuning.search_points import spread_points
from tuning.search_space import Point, Space

PRESCREEN_FILE = "prescreen.json"
UNSEEN = "clone."
"""What begins so is drawn with the rest, but makes no difference to what is promised."""


@dataclass(frozen=True)
class Promise:
    """A point with what the central problem promises of it. front: 0 if nothing beats it, 1 if
    nothing does once front 0 is gone, and so on; -1 without a certified solution (failure)."""

    point: Point
    prediction: Prediction | None = None
    failure: str = ""
    front: int = -1


@dataclass(frozen=True)
class Prescreened:
    """All points that were swept, and the places of those to train, best front first."""

    promises: tuple[Promise, ...]
    chosen: tuple[int, ...]
    wall_s: float

    @property
    def points(self) -> list[Point]:
        """What to train, as drawn."""
        return [self.promises[i].point for i in self.chosen]

    def words(self) -> str:
        """One line for the terminal."""
        solved = sum(p.prediction is not None for p in self.promises)
        first = sum(p.front == 0 for p in self.promises)
        taken = sum(self.promises[i].front == 0 for i in self.chosen)
        return (
            f"prescreened {len(self.promises)} points on the log in {self.wall_s:.0f} s, {solved} "
            f"solved: {first} on the promised front, {len(self.chosen)} to train, {taken} of them "
            "on it"
        )


def prescreen(
    root: Path,
    space: Space,
    num_points: int,
    num_chosen: int,
    *,
    seed: int,
    on_done: Callable[[int], None] | None = None,
) -> Prescreened:
    """The points to train of `num_points` that fill the space.

    Args:
        root: a scored run with the common configuration (log and reference scores).
        num_chosen: how many to train; fewer come back only if fewer have a solution.
        on_done: called with the number of points done so far.
    Raises: ConfigError, DataError.
    """
    check_prescreen(space, num_points, num_chosen)
    started = time.monotonic()
    promises: list[Promise] = []
    logs = _Logs(root)
    with one_torch_thread():
        for point in spread_points(space.dimensions, num_points, seed=seed):
            promises.append(_promised(logs, space, point))
            if on_done is not None:
                on_done(len(promises))
    solved = [i for i, p in enumerate(promises) if p.prediction is not None]
    if not solved:
        raise ConfigError(
            f"none of {num_points} points of the space has a certified solution on {root}; the "
            f"first: {promises[0].failure}"
        )
    values_N3 = objectives([p.prediction for p in promises if p.prediction is not None])
    fronts = fronts_of(values_N3)
    for i, front in zip(solved, fronts, strict=True):
        promises[i] = Promise(promises[i].point, promises[i].prediction, "", int(front))
    chosen = promising(values_N3, fronts, num_chosen)
    places = tuple(solved[n] for n in chosen)
    return Prescreened(tuple(promises), places, time.monotonic() - started)


def check_prescreen(space: Space, num_points: int, num_chosen: int) -> None:
    """Raises: ConfigError if the central problem cannot tell the points of the space apart."""
    if num_points < num_chosen:
        raise ConfigError(
            f"--prescreen {num_points} sweeps fewer points than --num-trials {num_chosen} trains; "
            "sweep some ten times as many, it costs seconds"
        )
    searched = [d.key for d in space.dimensions]
    if space.config.algorithm != METHOD or "algorithm" in searched:
        raise ConfigError(
            f"--prescreen solves the central problem of algorithm {METHOD}; the sweep is of "
            f"{'several' if 'algorithm' in searched else space.config.algorithm!r}: leave it out"
        )
    if space.config.targets.target_inconsistency is not None or (
        "targets.target_inconsistency" in searched
    ):
        raise ConfigError(
            "--prescreen sweeps lambda itself, but targets.target_inconsistency has it found; set "
            "it to null, or leave --prescreen out"
        )
    if all(key.startswith(UNSEEN) for key in searched):
        raise ConfigError(
            "--prescreen sees keys of targets and critic, the space has "
            f"{', '.join(searched)} alone; leave it out"
        )


def fronts_of(values_NM: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which front each point is on, from 0, int, shape (N,); equal points are on the same."""
    front_N = np.full(len(values_NM), -1)
    left = np.arange(len(values_NM))
    while len(left):
        best = pareto_mask(values_NM[left])
        front_N[left[best]] = front_N.max() + 1
        left = left[~best]
    return front_N


def promising(values_NM: NDArray[np.float64], front_N: NDArray[np.int64], count: int) -> list[int]:
    """Places of `count` points, whole fronts first; of a front that does not fit whole, those
    farthest from all taken before it, in objectives scaled to [0, 1]. The first is the one with
    the most of the first objective."""
    values = scaled(values_NM)
    chosen: list[int] = []
    for front in range(int(front_N.max()) + 1):
        members = np.flatnonzero(front_N == front).tolist()
        if not chosen:
            chosen = [max(members, key=lambda n: (tuple(values_NM[n]), -n))]
        chosen = farthest_first(values, members, chosen, min(count, len(chosen) + len(members)))
    return chosen[:count]


class _Logs:
    """The log as points see it: truth heads are fitted once per setting of what decides them."""

    def __init__(self, root: Path):
        self._root = root
        self._critics: dict[str, FittedCritic] = {}
        self._logs: dict[str, SweptLog] = {}

    def under(self, config: Config) -> SweptLog:
        """Raises: ConfigError, DataError."""
        critic = config.critic.model_dump(exclude={"pessimism"})
        fit = json.dumps([critic, config.targets.group_weights])
        log = json.dumps([fit, config.critic.pessimism, config.targets.borrow_peers])
        if log not in self._logs:
            if fit not in self._critics:
                self._critics[fit] = read_critic(self._root, config)
            self._logs = {log: swept_log(self._critics[fit].under(config), self._root)}
        return self._logs[log]


def _promised(logs: _Logs, space: Space, point: Point) -> Promise:
    config = space.resolved(point)
    read = space.settings(point)
    targets: dict[str, Any] = {
        key.removeprefix("targets."): value
        for key, value in read.items()
        if key.startswith("targets.")
    }
    (solved,) = solve_chain(logs.under(config), [targets])
    return Promise(point, solved.prediction, solved.failure)


def write_prescreen(result: Prescreened, root: Path) -> None:
    """`prescreen.json`: every point with its promise, and which ones are trained."""
    rows = [
        {
            "point": p.point,
            "prediction": None if p.prediction is None else asdict(p.prediction),
            "failure": p.failure,
            "front": p.front,
        }
        for p in result.promises
    ]
    record = {"promises": rows, "chosen": list(result.chosen), "wall_s": result.wall_s}
    text = json.dumps(record, indent=1, allow_nan=False)
    (root / PRESCREEN_FILE).write_text(text, encoding="utf-8")


def read_prescreen(root: Path) -> Prescreened | None:
    """What `write_prescreen` wrote; None where there is none."""
    path = root / PRESCREEN_FILE
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    promises = [
        Promise(
            row["point"],
            None if row["prediction"] is None else Prediction(**row["prediction"]),
            row["failure"],
            row["front"],
        )
        for row in record["promises"]
    ]
    return Prescreened(tuple(promises), tuple(record["chosen"]), record["wall_s"])


def promises_of(result: Prescreened, chosen: Sequence[int] | None = None) -> list[Prediction]:
    """What is promised of the given points, of all that were solved if None."""
    places = range(len(result.promises)) if chosen is None else chosen
    found = [result.promises[i].prediction for i in places]
    return [p for p in found if p is not None]
