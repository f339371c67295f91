"""A trial of a sweep as a run: it shares all stages before the targets, trains step by step, is
judged on the validation split while it trains, and may go on from another trial's adapters.

A trial's folder is an ordinary run directory. What is told here knows nothing of Ray Tune.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from trialign_ray.actors.placement import trial_bundles as bundles_of_trial
from trialign_ray.algorithms import algorithm_by_name
from trialign_ray.assembly import Assembly
from trialign_ray.checkpoint import (
    Checkpoint,
    file_sha256,
    newest_checkpoint,
    save_checkpoint,
    write_json,
)
from trialign_ray.comparison.worlds import remove_checkpoints
from trialign_ray.config import Config, load_config
from trialign_ray.errors import ConfigError, DataError, WorkerError
from trialign_ray.evaluate import answer_metrics, answer_questions
from trialign_ray.progress import Progress
from trialign_ray.run import Recipe
from trialign_ray.run_cache import BEHAVIOUR, CRITIC, LOG, share
from trialign_ray.run_directory import RunDirectory, config_hash, open_run
from trialign_ray.setting import build_setting

__all__ = [
    "Donor",
    "TrialRun",
    "TrialSpec",
    "WorkerError",
    "adopted_donor",
    "bundles_of_trial",
    "check_judged_while_training",
    "check_sweep",
    "prepare_base",
    "trial_config",
    "write_json",
]
VALIDATION_FILE = "validation.json"
ADOPTED_FILE = "adopted.json"
SHARES: dict[str, float] = {"cpus_per_group": 0.2, "cpus_critic": 0.1}
"""CPUs of a trial's actors where the configuration says nothing: with a driver's .1 a trial of four
groups takes one CPU. Critic and groups never work at the same time."""


def trial_config(path: Path | None, sets: Sequence[str]) -> Config:
    """The configuration that all trials share. Raises: ConfigError."""
    config = load_config(path, list(sets))
    unset = {k: v for k, v in SHARES.items() if k not in config.resources.model_fields_set}
    resources = config.resources.model_copy(update=unset)
    return config.model_copy(update={"resources": resources})


def check_sweep(config: Config, by_rungs: bool, takes_over: bool = False) -> int:
    """What can be known before anything is started. Returns: the number of groups.

    Args: by_rungs: trials are judged while they train. takes_over: they may go on from each
    other's adapters. Raises: ConfigError if they could not.
    """
    from trialign_ray import checks

    checks.check_names(config)
    setting = build_setting(config.judged_by_rules)
    checks.check_models(config)
    checks.check_vocabulary(config, setting)
    if not any(q.has_truth for q in setting.of_split("validation")):
        raise ConfigError(
            "no question of the validation split has a known answer, by which trials are judged; "
            f"raise world.validation_fraction (now {config.world.validation_fraction:g})"
        )
    check_judged_while_training(config, by_rungs, takes_over)
    return len(setting.groups)


def check_judged_while_training(config: Config, by_rungs: bool, takes_over: bool) -> None:
    """Whether a trial with this configuration can be judged before its end, and go on from
    another's adapters. Args, Raises: see `check_sweep`."""
    if by_rungs and algorithm_by_name(config.algorithm).sharing != "own":
        raise ConfigError(
            f"in algorithm {config.algorithm!r} groups share one adapter, which cannot be judged "
            "while it trains; use --search tpe, nsga2, random or grid"
        )
    for key in ("shared_rank", "coordinate_every"):
        if takes_over and getattr(config.clone, key) > 0:
            raise ConfigError(
                f"clone.{key} is {getattr(config.clone, key)}, but under pbt a trial goes on from "
                "another's adapters alone, without what else they were trained beside; set it to "
                "0, or use --search asha"
            )


def prepare_base(
    config: Config, folder: Path, cache: Path, progress: Progress, local: bool = False
) -> RunDirectory:
    """The run whose stages all trials share: behaviour model, log, reference scores and critic,
    each published in the cache; what is there already is not done again.

    Args: local: without Ray. Raises: TrialignError.
    """
    run = open_run(folder, config, resume=True)
    setting = build_setting(config, run.root)
    recipe = Recipe(config, setting, run, progress, Assembly(config, setting, run, local))
    try:
        share_stages(cache, recipe, recipe.fit_behaviour)
    finally:
        recipe.close()
    return run


def share_stages(cache: Path, recipe: Recipe, fit_behaviour: Any) -> None:
    """Everything before the targets, from the cache where it is there."""
    config, run = recipe.config, recipe.run_dir

    def make_log() -> None:
        recipe.collect()
        recipe.score()

    stages = [
        (BEHAVIOUR, fit_behaviour, config.fits_behaviour),
        (LOG, make_log, True),
        (CRITIC, recipe.fit_critic, recipe.assembly.algorithm.central),
    ]
    for stage, make, needed in stages:
        if needed:
            share(cache, stage, config, run, make, config.resources.timeout_s)


@dataclass(frozen=True)
class TrialSpec:
    """base: the run that `prepare_base` made. cache: where shared stages lie. folder: the trial's
    own. overrides: on top of the base's configuration. local: without Ray, for tests."""

    base: str
    cache: str
    folder: str
    overrides: tuple[str, ...]
    local: bool = False


@dataclass(frozen=True)
class Donor:
    """Checkpoints that `TrialRun.copy_checkpoints` wrote, of the trial from whose adapters and
    optimizers another goes on; name: of the trial and its step."""

    name: str
    folder: Path


class TrialRun:
    """One trial. Args: wall_s: is filled with what its parts take, in seconds.

    Raises: ConfigError if the folder holds a run with other settings.
    """

    def __init__(self, spec: TrialSpec, wall_s: dict[str, float]):
        self._spec, self.wall_s = spec, wall_s
        with self._timed("start"):
            config = load_config(Path(spec.base) / "config.yaml", list(spec.overrides))
            run = open_run(Path(spec.folder), config, resume=True)
            setting = build_setting(config, run.root)
            assembly = Assembly(config, setting, run, spec.local, in_trial=not spec.local)
            self._recipe = Recipe(config, setting, run, Progress(run.root), assembly)

    @property
    def steps(self) -> int:
        """Updates of every adapter in all."""
        return self._recipe.config.clone.steps

    def prepare(self, donor: Donor | None = None) -> None:
        """Shared stages, actors, targets; a donor's checkpoints are taken over. Raises:
        TrialignError."""
        with self._timed("start"):
            share_stages(Path(self._spec.cache), self._recipe, self._fit_behaviour_here)
            self._adopt(donor)
            _ = self._recipe.workers
        with self._timed("targets"):
            self._recipe.solve()
            self._adopt(donor)

    def train_to(self, step: int) -> None:
        """Trains every group's adapter up to `step`; exports them after the last. Raises:
        TrialignError."""
        with self._timed("clone"):
            if step < self.steps:
                self._recipe.adapter_stage().advance_to(step)
            else:
                self._recipe.clone()

    def evaluate(self) -> dict[str, float]:
        """The adapters as they are on the validation split, by the names of a sweep's metrics; all
        of it goes to `validation.json`."""
        recipe = self._recipe
        model = "aligned" if recipe.run_dir.training_file.is_file() else "training"
        with self._timed("evaluate"):
            protocol, modes = recipe.protocol("validation"), recipe.config.evaluate.modes
            answers = {m: answer_questions(protocol, recipe.workers, model, m) for m in modes}
            metrics = answer_metrics(protocol, answers, jsd=None)
            write_json(recipe.run_dir.root / VALIDATION_FILE, metrics)
        return sweep_metrics(metrics)

    def copy_checkpoints(self, target: Path, step: int) -> bool:
        """Every trainee's checkpoint of `step`, from which another trial can go on; False, and
        nothing copied, if training stands elsewhere or its checkpoints are gone."""
        run = self._recipe.run_dir
        found = {
            g: newest_checkpoint(run.checkpoint_dir(g), {}) for g in self._recipe.assembly.trainees
        }
        own = {g: c for g, c in found.items() if c is not None and c.step == step}
        if len(own) < len(found):
            return False
        for group, checkpoint in own.items():
            save_checkpoint(target / group, checkpoint)
        return True

    def finish(self) -> None:
        """Ends the actors of a trial that is trained; its adapters stay, its checkpoints go."""
        self.close()
        remove_checkpoints(self._recipe.run_dir)

    def close(self) -> None:
        """Ends the actors."""
        self._recipe.close()
        self._recipe.progress.close()

    def _adopt(self, donor: Donor | None) -> None:
        """Puts the donor's checkpoints where the own ones lie, as of this run: adapter, moments and
        step are the donor's, settings and rows this trial's. Needs the rows; done once."""
        recipe, note = self._recipe, self._recipe.run_dir.root / ADOPTED_FILE
        if donor is None or not recipe.run_dir.solution_file.is_file() or note.is_file():
            return
        for group in recipe.assembly.trainees:
            given = newest_checkpoint(donor.folder / group, {})
            if given is None:
                raise DataError(f"{donor.folder} holds no checkpoint of group {group}")
            own = {
                "config_sha256": config_hash(recipe.config),
                "rows_sha256": file_sha256(recipe.run_dir.rows_file(group)),
            }
            taken = Checkpoint(given.step, given.tensors, {**given.state, **own})
            save_checkpoint(recipe.run_dir.checkpoint_dir(group), taken)
        write_json(note, {"donor": donor.name})

    def _fit_behaviour_here(self) -> None:
        """In this process: data-parallel workers would wait for resources that trials hold."""
        recipe = self._recipe
        local = Assembly(recipe.config, recipe.setting, recipe.run_dir, local=True)
        Recipe(
            recipe.config, recipe.setting, recipe.run_dir, recipe.progress, local
        ).fit_behaviour()

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.wall_s[part] = self.wall_s.get(part, 0.0) + time.monotonic() - started


def sweep_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """What a sweep looks at, of an evaluation; adherence under the first prompt mode, of groups
    that have style rules, and 1 where none has: there is nothing to break."""
    truth, consistency = metrics["truth"], metrics["consistency"]
    adherence = next(iter(metrics["adherence"].values()))
    kept = [share for share in adherence["by_group"].values() if share is not None]
    return {
        "worst_truth": float(truth["worst"]),
        "all_correct": float(consistency["all_correct"]),
        "worst_adherence": float(min(kept, default=1.0)),
        "mean_truth": float(truth["mean"]),
        "truth_gap": float(truth["gap"]),
        "all_agree": float(consistency["all_agree"]),
        "mean_adherence": fmean(kept) if kept else 1.0,
    }


def adopted_donor(folder: Path) -> str | None:
    """The donor whose adapters a trial took over last; None if it trains its own from the start."""
    note = folder / ADOPTED_FILE
    return json.loads(note.read_text(encoding="utf-8"))["donor"] if note.is_file() else None
