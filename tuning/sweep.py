"""`trialign tune`: Ray Tune over penalty weights, every trial with actors of its own.

What all trials share is computed once, in `<root>/base`; a trial then costs its targets, cloning
and evaluation. Tune's own state lies in `<root>/tune` as pickles: restore trusted folders only.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from envs.errors import ConfigError, DataError
from trialign_ray.config import Config
from trialign_ray.run import Progress, start_ray
from trialign_ray.run_plan import resources_here
from trialign_ray.run_trial import (
    WorkerError,
    bundles_of_trial,
    check_sweep,
    prepare_base,
    trial_config,
    write_json,
)
from tuning.search_space import Space, override
from tuning.sweep_loggers import check_loggers, tune_callbacks
from tuning.sweep_plan import (
    TRIAL_FILE,
    Searching,
    SweepPlan,
    TrialRecord,
    read_record,
    record_as_json,
    trials_dir,
)
from tuning.sweep_state import open_sweep
from tuning.sweep_times import noted_time
from tuning.sweep_watch import SweepWatch, require_no_actors
from tuning.trial import TRAINED_OUT, train_trial
from tuning.trial_folder import SweepFolder
from tuning.trial_resources import STRATEGY, TrialResources
from tuning.tune_state import require_readable_state

logger = logging.getLogger(__name__)
SNAPSHOT_S = 5
UNKNOWN = "unknown_trials"


def plan_resources(plan: SweepPlan, config: Config, nodes: list[dict[str, float]]) -> Any:
    """What a trial reserves, beside what the cluster's nodes have. Raises: ConfigError."""
    num_groups = check_sweep(config, plan.by_rungs, plan.search == "pbt")
    bundles = bundles_of_trial(num_groups, config.resources, plan.driver_cpus)
    return TrialResources(tuple(bundles), tuple(nodes))


@dataclass(frozen=True)
class Prepared:
    """A sweep whose trials can start. base: the run whose stages they share, scored. stall_s: for
    how long trials may tell nothing."""

    folder: SweepFolder
    base: Path
    resources: TrialResources
    stall_s: float


def prepare_sweep(
    plan: SweepPlan, space: Space, root: Path, resume: bool, progress: Progress
) -> Prepared:
    """Checks everything, starts Ray, computes what all trials share; what is there is not done
    again.

    Raises: ConfigError, at once, if not even one trial could ever start, or the folder holds a
    sweep that cannot be continued so; TrialignError.
    """
    plan.check()
    check_loggers(plan)
    folder = SweepFolder(root.expanduser().resolve())
    config = trial_config(Path(plan.config_path) if plan.config_path else None, plan.sets)
    if not os.environ.get("RAY_ADDRESS") and not _ray_is_up():
        _concurrent(plan, plan_resources(plan, config, [resources_here()]))
    start_ray()
    resources = plan_resources(plan, config, cluster_nodes())
    _concurrent(plan, resources)
    open_sweep(folder, plan, config, space.lines(), resume)
    with noted_time(folder.root, "prepare_s"):
        base = prepare_base(config, folder.base, folder.cache, progress)
    return Prepared(folder, base.root, resources, longest_silence_s(plan, config))


def longest_silence_s(plan: SweepPlan, config: Config) -> float:
    """After how many seconds without a word a sweep is stalled: no sooner than every call of a
    trial between two of its reports, training and an evaluation per prompt mode, may take."""
    return max(plan.stall_s, (len(config.evaluate.modes) + 1) * config.resources.timeout_s)


def run_sweep(
    plan: SweepPlan,
    space: Space,
    searching: Searching,
    root: Path,
    resume: bool,
    progress: Progress,
) -> list[TrialRecord]:
    """Runs or continues a sweep; returns the records of all its trials, each once.

    Raises: ConfigError if it cannot be started or continued so; WorkerError if trials tell nothing
    for `plan.stall_s`; KeyboardInterrupt after an orderly end, from which `resume` goes on.
    """
    from ray import tune

    prepared = prepare_sweep(plan, space, root, resume, progress)
    folder, resources = prepared.folder, prepared.resources
    for line in resources.lines(searching.num_samples, plan.max_concurrent):
        logger.info(line)
    trainable = tune.with_resources(
        tune.with_parameters(train_trial, root=str(folder.root), plan=plan),
        tune.PlacementGroupFactory(list(resources.bundles), strategy=STRATEGY),
    )
    with _tune_environment(), noted_time(folder.root, "trials_s"):
        tuner = _tuner(plan, searching, folder, trainable, _concurrent(plan, resources))
        watch = SweepWatch(folder, progress, searching.num_samples, prepared.stall_s)
        try:
            with watch:
                grid = tuner.fit()
        finally:
            require_no_actors(_trial_ids(folder))
    if watch.ended_by == "interrupt":
        raise KeyboardInterrupt
    if watch.ended_by == "stall":
        raise WorkerError(
            f"no trial told anything for {prepared.stall_s:g} s, so the sweep was ended; see the "
            f"folders under {trials_dir(folder.root)}, and go on with --resume --run-dir "
            f"{folder.root}"
        )
    return [_settled(folder, result) for result in _only_known(folder, list(grid))]


def cluster_nodes() -> list[dict[str, float]]:
    """What every living node of the cluster that this process is connected to has."""
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _ray_is_up() -> bool:
    import ray

    return ray.is_initialized()


def _concurrent(plan: SweepPlan, resources: TrialResources) -> int | None:
    """Most trials at once; None for PBT, whose population takes turns in what there is."""
    most = resources.concurrent(plan.max_concurrent)
    if plan.search != "pbt":
        return most
    if plan.max_concurrent is not None:
        raise ConfigError(
            "max_concurrent does not go with pbt: all trials of a population train side by side, "
            f"here {resources.at_once} at a time; leave it out"
        )
    return None


def _tuner(
    plan: SweepPlan, searching: Searching, folder: SweepFolder, trainable: Any, at_once: int | None
) -> Any:
    from ray import tune

    require_readable_state(folder)
    if tune.Tuner.can_restore(str(folder.tune)):
        return tune.Tuner.restore(
            str(folder.tune), trainable, resume_unfinished=True, resume_errored=True
        )
    return tune.Tuner(
        trainable,
        param_space=searching.param_space,
        tune_config=tune.TuneConfig(
            search_alg=searching.search_alg,
            scheduler=searching.scheduler,
            num_samples=searching.num_samples,
            max_concurrent_trials=at_once,
            trial_dirname_creator=_dirname,
        ),
        run_config=tune.RunConfig(
            name=folder.tune.name,
            storage_path=str(folder.root),
            stop={TRAINED_OUT: 1.0},
            failure_config=tune.FailureConfig(max_failures=plan.max_failures),
            callbacks=tune_callbacks(plan, folder),
            verbose=0,
        ),
    )


def _dirname(trial: Any) -> str:
    """Tune's own folder of a trial has the trial's name."""
    return trial.trial_id


@contextmanager
def _tune_environment() -> Iterator[None]:
    """Interrupts are ours (`SweepWatch`), loggers the plan's, and a killed driver loses seconds."""
    ours = {
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": str(SNAPSHOT_S),
        "RAY_AIR_NEW_OUTPUT": "0",  # the newer output is not silent when asked to be
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _trial_ids(folder: SweepFolder) -> list[str]:
    root = trials_dir(folder.root)
    return [path.name for path in root.iterdir()] if root.is_dir() else []


def _only_known(folder: SweepFolder, results: list[Any]) -> list[Any]:
    """Puts aside the folders of trials that Tune, killed before it wrote them down, has forgotten
    and drawn again: they would count twice. What one of them has trained to its end is said."""
    known = {Path(r.path).name for r in results}
    for trial_id in sorted(set(_trial_ids(folder)) - known):
        logger.warning(
            "trial %s%s is not in Tune's state and counts nowhere; moved to %s/",
            trial_id,
            ", although trained to its end," if _is_done(folder.trial(trial_id)) else "",
            UNKNOWN,
        )
        target = folder.root / UNKNOWN / trial_id
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        shutil.move(folder.trial(trial_id), target)
    return results


def _is_done(path: Path) -> bool:
    try:
        return read_record(path).status == "done"
    except DataError:
        return False


def _settled(folder: SweepFolder, result: Any) -> TrialRecord:
    """A trial's record as it is at the end: one whose process was killed could not write it."""
    path = folder.trial(Path(result.path).name)
    try:
        record = read_record(path)
    except DataError:
        params = dict(result.config or {})
        overrides = tuple(override(key, value) for key, value in params.items())
        record = TrialRecord(path.name, params, overrides, "failed", folder=str(path))
    if result.error is not None and record.status != "failed":
        error = str(result.error).strip().splitlines()[-1]
        record = replace(record, status="failed", error=error, finished_at=time.time())
        write_json(path / TRIAL_FILE, record_as_json(record))
    return record
