"""Where the parts of a sweep lie, and what a trial keeps in its folder beside the run itself."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from envs.errors import DataError
from trialign_ray.run_trial import Donor, TrialSpec, adopted_donor, write_json
from tuning.search_space import override
from tuning.sweep_plan import TRIAL_FILE, TrialRecord, read_record, record_as_json, trials_dir

RUNGS_FILE = "rungs.json"
CHECKPOINTS, META_FILE = "checkpoints", "given.json"


@dataclass(frozen=True)
class SweepFolder:
    """Paths of a sweep; `root` is absolute and the same for every node of the cluster."""

    root: Path

    @property
    def base(self) -> Path:
        """The run whose log, reference scores and critic all trials share."""
        return self.root / "base"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def tune(self) -> Path:
        """Ray Tune's own state: pickles."""
        return self.root / "tune"

    @property
    def state_file(self) -> Path:
        """What the sweep was started with."""
        return self.root / "sweep.json"

    def trial(self, trial_id: str) -> Path:
        return trials_dir(self.root) / trial_id


@dataclass(frozen=True)
class Given:
    """A checkpoint that Tune hands to a trial: whose it is, at which step, and where it lies."""

    trial_id: str
    step: int
    folder: Path

    @property
    def donor(self) -> Donor:
        return Donor(f"{self.trial_id} at step {self.step}", self.folder / CHECKPOINTS)


def read_given(folder: Path) -> Given:
    """The checkpoint that a trial left there."""
    meta = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
    return Given(meta["trial_id"], meta["step"], folder)


def write_given(folder: Path, trial_id: str, step: int) -> None:
    """Says of a checkpoint whose it is."""
    write_json(folder / META_FILE, {"trial_id": trial_id, "step": step})


class TrialFolder:
    """One trial on disk. `record` is what its `trial.json` says."""

    def __init__(self, sweep: SweepFolder, trial_id: str, params: Mapping[str, Any]):
        overrides = tuple(override(key, value) for key, value in params.items())
        self._sweep, self.path = sweep, sweep.trial(trial_id)
        self.record = TrialRecord(trial_id, dict(params), overrides, "stopped")
        self._earlier_s: dict[str, float] = {}
        self._started = time.monotonic()

    @cached_property
    def spec(self) -> TrialSpec:
        """What the trial is as a run."""
        return TrialSpec(
            base=str(self._sweep.base),
            cache=str(self._sweep.cache),
            folder=str(self.path),
            overrides=self.record.overrides,
        )

    def donor(self, given: Given | None) -> Donor | None:
        """Another trial's checkpoint to go on from; None where there is none or it is one's own."""
        if given is None or given.trial_id == self.record.trial_id:
            return None
        return given.donor

    def open(self, given: Given | None) -> None:
        """Goes on with what is there. The folder is emptied if it holds another setting, or is to
        go on from a donor whose adapters it has not taken over; what that cost is remembered."""
        try:
            found = read_record(self.path)
        except DataError:
            found = None
        if found is not None:
            self._earlier_s = found.wall_s
            donor = self.donor(given)
            same = found.overrides == self.record.overrides
            taken = donor is None or adopted_donor(self.path) == donor.name
            if same and taken and (self.path / "config.yaml").is_file():
                self.record = found
                return
        shutil.rmtree(self.path, ignore_errors=True)

    def write(self, wall_s: Mapping[str, float], **changes: Any) -> None:
        """Puts the record with its changes on disk; seconds are added to those of earlier
        attempts."""
        now = {**wall_s, "total": time.monotonic() - self._started}
        parts = {**dict.fromkeys(self._earlier_s, 0.0), **now}
        summed = {k: self._earlier_s.get(k, 0.0) + v for k, v in parts.items()}
        self.record = replace(self.record, wall_s=summed, finished_at=time.time(), **changes)
        write_json(self.path / TRIAL_FILE, record_as_json(self.record))

    def metrics_at(self, step: int) -> dict[str, float] | None:
        """The metrics of a rung that was reached before; None if it was not."""
        return self.rungs().get(step)

    def note_rung(self, step: int, metrics: dict[str, float]) -> None:
        """Keeps the metrics of a rung: trained beyond it, it cannot be asked again."""
        write_json(self.path / RUNGS_FILE, {**self.rungs(), step: metrics})

    def rungs(self) -> dict[int, dict[str, float]]:
        """Metrics by step of all rungs that were reached, ascending."""
        path = self.path / RUNGS_FILE
        if not path.is_file():
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
        return {int(step): metrics for step, metrics in found.items()}
