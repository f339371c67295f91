"""What a sweep is asked for and what its trials leave: shared by search, trials, results and page.

A trial is an ordinary run directory, `<root>/trials/<trial_id>/`, with a record beside it
(`trial.json`), so that `trialign report`, `trialign export` and `--resume` work on it too. The root
must lie where every node of the cluster sees it.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from envs.errors import ConfigError, DataError

OBJECTIVES = ("worst_truth", "all_correct", "worst_adherence")
"""What a sweep trades, all in [0, 1] and to be raised, on the validation split: truth of the worst
group, share of questions on which every group is right, adherence of the worst group."""
METRICS = (*OBJECTIVES, "mean_truth", "truth_gap", "all_agree", "mean_adherence")
"""All that a trial's evaluation gives; `truth_gap`, worst to best group, is to be lowered."""
Search = Literal["tpe", "nsga2", "random", "grid", "asha", "pbt"]
SEARCHES: tuple[Search, ...] = ("tpe", "nsga2", "random", "grid", "asha", "pbt")
LOGGERS = ("tensorboard", "mlflow", "wandb")
TRIAL_FILE = "trial.json"


@dataclass(frozen=True)
class SweepPlan:
    """What to search, how, and with what.

    config_path: YAML of the common configuration, None for the defaults. sets: overrides on top of
    it, the same for all trials. prescreen: points to sweep on the central problem first, of which
    the best are trained; 0 for none. metric: the one declared scalar that asha and pbt go by, one
    of `METRICS`. max_concurrent: most trials at once, None for as many as the cluster holds.
    num_rungs: how often a trial reports under asha and pbt; one report at its end elsewhere.
    max_failures: how often a trial that broke is tried again, from its checkpoints.
    driver_cpus: CPUs of the process that leads a trial; it waits most of the time.
    stall_s: a sweep whose trials report nothing for so long is ended, though never sooner than
    `resources.timeout_s` for training and for each prompt mode; its error says so.
    """

    config_path: str | None = None
    sets: tuple[str, ...] = ()
    num_trials: int = 12
    prescreen: int = 0
    search: Search = "tpe"
    seed: int = 0
    metric: str = "worst_truth"
    max_concurrent: int | None = None
    num_rungs: int = 4
    max_failures: int = 2
    loggers: tuple[str, ...] = ("tensorboard",)
    driver_cpus: float = 0.1
    stall_s: float = 3600.0

    @property
    def by_rungs(self) -> bool:
        """Whether trials report while they train."""
        return self.search in ("asha", "pbt")

    def rungs(self, steps: int) -> tuple[int, ...]:
        """Updates after which a trial reports, ascending, the last one `steps`."""
        count = min(self.num_rungs, steps) if self.by_rungs else 1
        return tuple(steps * (i + 1) // count for i in range(count))

    def check(self) -> None:
        """Raises: ConfigError, naming the option, its value and what it may be."""
        for option, value, known in (
            ("search", self.search, SEARCHES),
            ("metric", self.metric, METRICS),
            *(("loggers", logger, LOGGERS) for logger in self.loggers),
        ):
            if value not in known:
                raise ConfigError(f"{option} is {value!r}; expected one of {', '.join(known)}")
        least_of = {"num_trials": 1, "prescreen": 0, "num_rungs": 1, "max_failures": 0}
        for option, least in least_of.items():
            if getattr(self, option) < least:
                raise ConfigError(f"{option} is {getattr(self, option)}; expected {least} or more")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise ConfigError(f"max_concurrent is {self.max_concurrent}; expected 1 or more")
        for option in ("driver_cpus", "stall_s"):
            if not getattr(self, option) > 0:
                raise ConfigError(f"{option} is {getattr(self, option)}; expected more than 0")


@dataclass(frozen=True)
class Searching:
    """What Ray Tune is handed: a search algorithm (None: Tune's own, for random and grid), a
    scheduler (None: first in, first out), the space of dotted configuration keys, and the number
    of samples (of a grid: how often it is gone through)."""

    search_alg: Any
    scheduler: Any
    param_space: dict[str, Any]
    num_samples: int


@dataclass(frozen=True)
class TrialRecord:
    """What is known of a trial, as its folder tells.

    params: what the search chose, by dotted configuration key. overrides: the same as `--set`.
    status: done (trained to its last update), stopped (by the scheduler, at `step`) or failed.
    metrics: of the newest report, by the names in `METRICS`, on validation; empty before the first.
    step: updates of that report. wall_s: seconds by part: start, targets, clone, evaluate, total;
    what is in no part of them is overhead. finished_at: of the newest report, seconds since 1970.
    node: Ray's id of the node that its driver ran on. folder: run directory.
    """

    trial_id: str
    params: dict[str, Any]
    overrides: tuple[str, ...]
    status: Literal["done", "failed", "stopped"]
    metrics: dict[str, float] = field(default_factory=dict)
    step: int = 0
    wall_s: dict[str, float] = field(default_factory=dict)
    finished_at: float = 0.0
    error: str = ""
    node: str = ""
    folder: str = ""


def trials_dir(root: Path) -> Path:
    """Where a sweep keeps its trials."""
    return root / "trials"


def record_as_json(record: TrialRecord) -> dict[str, Any]:
    """A record as it is written to `trial.json`; the folder is where the file lies."""
    return {key: value for key, value in asdict(record).items() if key != "folder"}


def read_record(folder: Path) -> TrialRecord:
    """The record in a trial's folder. Raises: DataError if it is not readable."""
    path = folder / TRIAL_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in fields(TrialRecord)} - {"folder"}
        if set(values) != known:
            raise ValueError(f"keys {sorted(values)}, expected {sorted(known)}")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is no record of a trial ({error}); it may come from another version: start "
            "the sweep again in a new --run-dir"
        ) from error
    values["overrides"] = tuple(values["overrides"])
    values["metrics"] = {k: float("nan") if v is None else v for k, v in values["metrics"].items()}
    return TrialRecord(**values, folder=str(folder))


def read_records(root: Path) -> list[TrialRecord]:
    """The records of all trials that left one, in the order in which they ended."""
    found = [read_record(path.parent) for path in trials_dir(root).glob(f"*/{TRIAL_FILE}")]
    return sorted(found, key=lambda r: (r.finished_at, r.trial_id))
