"""One trial of a sweep, as Ray Tune runs it: targets, cloning, evaluation, by actors of its own.

The trial's process leads; its groups' actors and its critic-learner stand in the other bundles of
its placement group. A trial that is tried again goes on in its folder, where its checkpoints lie.
Under ASHA and PBT it reports at every rung; when PBT lets it take over another trial, it begins its
folder anew with the new settings and the other's adapters, moments and step.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trialign_ray.run_trial import TrialRun
from tuning.sweep_plan import SweepPlan
from tuning.trial_folder import (
    CHECKPOINTS,
    Given,
    SweepFolder,
    TrialFolder,
    read_given,
    write_given,
)

TRAINED_OUT = "trained_out"
"""1 in a trial's last report, by which Tune ends it: PBT would let it take over another once more,
and nothing is left to train."""


def train_trial(params: dict[str, Any], *, root: str, plan: SweepPlan) -> None:
    """The trainable. Args: params: what the search chose, by dotted key; root: the sweep's folder.

    Raises: TrialignError, by which Tune knows that the trial failed.
    """
    from ray import tune

    trial = TrialFolder(SweepFolder(Path(root)), tune.get_context().get_trial_id(), params)
    with _given(tune.get_checkpoint()) as given:
        trial.open(given)
        if trial.record.status == "done":  # Tune was killed before it knew
            _repeat(trial, given)
            return
        wall_s: dict[str, float] = {}
        try:
            _train(trial, plan, given, wall_s)
        except Exception as error:
            trial.write(wall_s, status="failed", error=f"{type(error).__name__}: {error}")
            raise


def _train(
    trial: TrialFolder, plan: SweepPlan, given: Given | None, wall_s: dict[str, float]
) -> None:
    """Args: wall_s: filled with what the parts have taken, whatever happens."""
    run = TrialRun(trial.spec, wall_s)
    try:
        trial.write(wall_s, status="stopped", error="", node=_node())
        run.prepare(trial.donor(given))
        rungs = plan.rungs(run.steps)
        for step in [s for s in rungs if given is None or s > given.step] or rungs[-1:]:
            metrics = trial.metrics_at(step)
            if metrics is None:
                run.train_to(step)
                metrics = run.evaluate()
                trial.note_rung(step, metrics)
            _report(trial, run, plan, step, metrics)
    finally:
        run.close()


def _repeat(trial: TrialFolder, given: Given | None) -> None:
    """Reports once more what a finished trial had reported since the checkpoint that Tune knows."""
    from ray import tune

    for step, metrics in trial.rungs().items():
        if given is None or step > given.step:
            tune.report(_result(metrics, step, step == trial.record.step))


def _report(
    trial: TrialFolder, run: TrialRun, plan: SweepPlan, step: int, metrics: dict[str, float]
) -> None:
    """Tells Tune. After the last rung nothing is left to be done when Tune ends this process."""
    from ray import tune

    last = step >= run.steps
    with tempfile.TemporaryDirectory(prefix="trialign-") as name:
        checkpoint = None
        if plan.by_rungs and run.copy_checkpoints(Path(name) / CHECKPOINTS, step):
            write_given(Path(name), trial.record.trial_id, step)
            checkpoint = tune.Checkpoint.from_directory(name)
        if last:
            run.finish()
        status = "done" if last else "stopped"
        trial.write(run.wall_s, status=status, metrics=metrics, step=step)
        tune.report(_result(metrics, step, last), checkpoint=checkpoint)


def _result(metrics: dict[str, float], step: int, last: bool) -> dict[str, float]:
    return {**metrics, "step": step, TRAINED_OUT: float(last)}


def _node() -> str:
    import ray

    return ray.get_runtime_context().get_node_id()


@contextmanager
def _given(checkpoint: Any) -> Iterator[Given | None]:
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield read_given(Path(folder))
