"""Some points of a frontier trained: does what the log promises come true?"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trialign_ray.run import Progress
from trialign_ray.run_variant import Realised, Variant, train_variant
from trialign_ray.targets_frontier import rank_agreement
from trialign_ray.targets_sweep import Point
from tuning.frontier_grid import setting_name

POLL_S = 5.0
Trainer = Callable[[Sequence[Variant]], Iterator[tuple[int, Realised]]]
"""Trains variants and yields each one's place with its result, in whatever order they end."""


@dataclass(frozen=True)
class TrainedPoint:
    """A point of the sweep with what its training was worth; index: its place in the sweep."""

    index: int
    name: str
    overrides: tuple[str, ...]
    realised: Realised


def train_here(variants: Sequence[Variant]) -> Iterator[tuple[int, Realised]]:
    """One after the other, in this process."""
    for i, variant in enumerate(variants):
        yield i, train_variant(variant)


def train_on_ray(
    variants: Sequence[Variant], cpus_each: float = 1.0, timeout_s: float = 3600.0
) -> Iterator[tuple[int, Realised]]:
    """As many at once as the cluster that this process is connected to has CPUs.

    A worker that dies is tried again. If nothing ends within `timeout_s`, what is left has failed.
    """
    import ray

    remote: Any = ray.remote(train_variant).options(num_cpus=cpus_each, max_retries=2)
    pending = {remote.remote(v): i for i, v in enumerate(variants)}
    last_end = time.monotonic()
    try:
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=POLL_S)
            for reference in ready:
                last_end = time.monotonic()
                yield pending.pop(reference), _fetched(reference)
            if time.monotonic() - last_end > timeout_s:
                for i in pending.values():
                    yield i, Realised(failure=f"no result in {timeout_s:g} s")
                break
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)


def _fetched(reference: Any) -> Realised:
    import ray
    from ray.exceptions import RayError

    try:
        return ray.get(reference, timeout=POLL_S)
    except RayError as error:
        return Realised(failure=(str(error).strip() or repr(error)).splitlines()[0])


def train_points(
    root: Path,
    points: Sequence[Point],
    chosen: Sequence[int],
    overrides_of: Callable[[Point], list[str]],
    progress: Progress,
    trainer: Trainer = train_here,
) -> list[TrainedPoint]:
    """The chosen points trained, each in `frontier/trained/<setting>` of the run; those that are
    there already are read. Args: chosen: places in `points`. overrides_of: what a point sets."""
    names = [setting_name(points[i].settings) for i in chosen]
    variants = [
        Variant(
            str(root), str(root / "frontier" / "trained" / name), tuple(overrides_of(points[i]))
        )
        for i, name in zip(chosen, names, strict=True)
    ]
    results: dict[int, Realised] = {}
    with progress.stage("trained", len(chosen)):
        for place, realised in trainer(variants):
            results[place] = realised
            note = names[place] + (" failed" if realised.failure else "")
            progress.display.advance("trained", len(results), note)
    return [
        TrainedPoint(i, names[n], variants[n].overrides, results[n]) for n, i in enumerate(chosen)
    ]


def correlations(
    points: Sequence[Point], trained: Sequence[TrainedPoint]
) -> dict[str, dict[str, float | None]]:
    """Spearman's rho of what the worst group was promised and what it got, by split: truth,
    personalization, and promised personalization with adherence to the style rules."""
    done = [t for t in trained if not t.realised.failure]
    truth = [points[t.index].promise.worst_truth for t in done]
    liking = [points[t.index].promise.worst_personalization for t in done]

    def rho(promised: Sequence[float], realised: Sequence[dict[str, float]]) -> float | None:
        if not all(realised):  # personalization that no rater scored
            return None
        return rank_agreement(promised, [min(by_group.values()) for by_group in realised])

    return {
        split: {
            "truth": rho(truth, [t.realised.truth[split] for t in done]),
            "personalization": rho(liking, [t.realised.personalization[split] for t in done]),
            "adherence": rho(liking, [t.realised.adherence[split] for t in done]),
        }
        for split in (done[0].realised.splits if done else [])
    }
