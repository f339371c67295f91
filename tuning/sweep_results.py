"""What the trials of a sweep are worth together: the table, the Pareto set, volume over time, and
where the time went. All on validation; see `sweep_choice` for what is chosen and tested.

Shapes: N trials, M objectives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trialign_ray.targets_frontier import hypervolume, pareto_mask
from tuning.sweep_plan import METRICS, OBJECTIVES, TrialRecord

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = (0.0, 0.0, 0.0)
"""Point above which volume is measured, in `OBJECTIVES`: nothing true, nothing in style."""
PARTS = ("start", "targets", "clone", "evaluate")
"""Parts of a trial's wall time, in order; what is in none of them is Tune's."""
STARTING = "start"


@dataclass(frozen=True)
class Overhead:
    """Where a sweep's time went, in seconds. prepare: what was made once for all trials, before
    them; running: wall time from the first trial's start to the last one's end, with Tune; trials:
    sum of the trials' own wall times, by part in by_part. places: trials that fit side by side."""

    prepare_s: float
    running_s: float
    trials_s: float
    by_part: dict[str, float]
    places: int

    @property
    def busy(self) -> float:
        """Share of what the places could have worked for in which trials were under way; the rest
        is Tune starting processes, and places left empty at the end."""
        could_s = self.running_s * self.places
        return self.trials_s / could_s if could_s > 0 else 0.0

    @property
    def share(self) -> float:
        """Overhead: share of what the places could have worked for in which nobody solved, trained
        or evaluated."""
        could_s = self.running_s * self.places
        useful_s = sum(s for part, s in self.by_part.items() if part != STARTING)
        return 1 - useful_s / could_s if could_s > 0 else 0.0

    @property
    def start_share(self) -> float:
        """The part of the overhead in which trials started their actors."""
        could_s = self.running_s * self.places
        return self.by_part.get(STARTING, 0.0) / could_s if could_s > 0 else 0.0

    def words(self) -> str:
        """One line for terminal and page."""
        return (
            f"{self.prepare_s:.0f} s once for all trials, then {self.running_s:.0f} s for trials "
            f"that took {self.trials_s:.0f} s together, {self.places} at once at most; overhead "
            f"{self.share:.0%} of the places' time: {self.start_share:.0%} starting actors, "
            f"{self.share - self.start_share:.0%} Tune and places without a trial"
        )


def finished(records: Sequence[TrialRecord]) -> list[int]:
    """Places of trials that were trained out and have a figure for every objective."""
    return [
        i
        for i, r in enumerate(records)
        if r.status == "done" and all(np.isfinite(r.metrics.get(m, np.nan)) for m in OBJECTIVES)
    ]


def objectives_of(records: Sequence[TrialRecord]) -> NDArray[np.float64]:
    """`OBJECTIVES` of finished trials, shape (N, 3)."""
    rows = [[r.metrics[m] for m in OBJECTIVES] for r in records]
    return np.array(rows, dtype=np.float64).reshape(-1, len(OBJECTIVES))


def pareto_set(records: Sequence[TrialRecord]) -> list[int]:
    """Places of finished trials that no other beats in all objectives; of equal ones each."""
    done = finished(records)
    mask = pareto_mask(objectives_of([records[i] for i in done]))
    return [i for i, kept in zip(done, mask, strict=True) if kept]


def volume_over_time(records: Sequence[TrialRecord]) -> list[tuple[float, float, str]]:
    """After each finished trial: seconds since the first trial began, hypervolume above `REFERENCE`
    of all trials so far, and the trial's id. Never falls."""
    done = sorted((records[i] for i in finished(records)), key=lambda r: r.finished_at)
    values_NM, reference_M = objectives_of(done), np.array(REFERENCE)
    began = min((r.finished_at - r.wall_s.get("total", 0.0) for r in records), default=0.0)
    volumes = [hypervolume(values_NM[: n + 1], reference_M) for n in range(len(done))]
    return [
        (r.finished_at - began, volume, r.trial_id) for r, volume in zip(done, volumes, strict=True)
    ]


def overhead(records: Sequence[TrialRecord], times: Mapping[str, float], places: int) -> Overhead:
    """Where the time went. Args: times: prepare_s and trials_s, as `read_times` gives them.
    places: trials that fit side by side."""
    parts = {p: sum(r.wall_s.get(p, 0.0) for r in records) for p in PARTS}
    total_s = sum(r.wall_s.get("total", 0.0) for r in records)
    return Overhead(times.get("prepare_s", 0.0), times.get("trials_s", 0.0), total_s, parts, places)


def trials_table(records: Sequence[TrialRecord]) -> "pd.DataFrame":
    """One row per trial, in the order of `records`: trial_id, status, step, what was searched (by
    its key), `METRICS`, on_front, wall_s_<part>, finished_at, overrides, error, folder. What a
    trial does not have, an idle dimension say, is missing."""
    import pandas as pd

    front = set(pareto_set(records))
    searched = list(dict.fromkeys(key for r in records for key in r.params))
    parts = list(dict.fromkeys([*PARTS, "total", *(p for r in records for p in r.wall_s)]))
    rows = []
    for i, record in enumerate(records):
        row = {name: asdict(record)[name] for name in ("trial_id", "status", "step")}
        row |= {key: record.params.get(key) for key in searched}
        row |= {name: record.metrics.get(name) for name in METRICS}
        row |= {"on_front": i in front}
        row |= {f"wall_s_{part}": record.wall_s.get(part) for part in parts}
        row |= {"finished_at": record.finished_at, "overrides": " ".join(record.overrides)}
        rows.append(row | {"error": record.error, "folder": record.folder})
    return pd.DataFrame(rows)


def write_trials(records: Sequence[TrialRecord], root: Path) -> tuple[Path, Path]:
    """trials.parquet and trials.csv; their paths."""
    table = trials_table(records)
    mixed = table.select_dtypes("object").columns  # of one type each, or Parquet refuses them
    for column in mixed:
        kinds = {type(value) for value in table[column].dropna()}
        if len(kinds) > 1:
            table[column] = [None if value is None else str(value) for value in table[column]]
    parquet, csv = root / "trials.parquet", root / "trials.csv"
    table.to_parquet(parquet, compression="zstd", index=False)
    table.to_csv(csv, index=False)
    return parquet, csv
