"""`trialign tune` from options to files: what is cheap is checked first, then Ray starts."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from envs.errors import ConfigError
from trialign_ray.config import Config, to_yaml
from trialign_ray.run import Progress
from trialign_ray.run_plan import resources_here
from trialign_ray.run_tested import behaviour_on_validation, on_test
from trialign_ray.run_trial import check_judged_while_training, trial_config
from tuning.prescreen import (
    Prescreened,
    check_prescreen,
    prescreen,
    read_prescreen,
    write_prescreen,
)
from tuning.search_space import Point, Space, read_space
from tuning.searchers import make_searching
from tuning.sweep import Prepared, plan_resources, prepare_sweep, run_sweep
from tuning.sweep_choice import Metrics, read_metrics, write_metrics
from tuning.sweep_loggers import check_loggers
from tuning.sweep_plan import SweepPlan
from tuning.sweep_results import overhead
from tuning.sweep_state import BEHAVIOUR_FILE
from tuning.sweep_summary import SweepSummary, chosen_and_tested, write_sweep
from tuning.sweep_times import read_times

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A sweep as it is asked for. config: what all trials share."""

    plan: SweepPlan
    space: Space
    config: Config

    @property
    def num_trials(self) -> int:
        """Trials that will be trained; a grid may have fewer points than were allowed."""
        return make_searching(self.plan, self.space).num_samples


def make_request(plan: SweepPlan, space: str | None, check: Callable[[Config], None]) -> Request:
    """The sweep, checked as far as can be without starting anything.

    Args: space: see `read_space`. check: raises where a configuration contradicts itself. Raises:
    ConfigError.
    """
    plan.check()
    check_loggers(plan)
    config = trial_config(Path(plan.config_path) if plan.config_path else None, plan.sets)

    def check_trial(config: Config) -> None:
        check(config)
        check_judged_while_training(config, plan.by_rungs, plan.search == "pbt")

    check_trial(config)
    request = Request(plan, read_space(space, config, check_trial), config)
    make_searching(plan, request.space)
    if plan.prescreen:
        check_prescreen(request.space, plan.prescreen, plan.num_trials)
        if plan.search == "grid":
            raise ConfigError(
                "a grid has its own points; use --prescreen with another --search, say random"
            )
    if config.engine.kind != "transformers":
        logger.warning(
            "engine.kind %s makes the log alone: in trials, and in the tests of those that are "
            "chosen, the groups' actors generate",
            config.engine.kind,
        )
    return request


def arithmetic(request: Request, nodes: list[dict[str, float]]) -> list[str]:
    """Trials, bundles, and how many run at once. Raises: ConfigError if none ever could."""
    plan = request.plan
    resources = plan_resources(plan, request.config, nodes)
    lines = [f"search: {plan.search} over {len(request.space.dimensions)} dimensions"]
    if plan.prescreen:
        lines.append(f"points swept on the log first: {plan.prescreen}")
    return [*lines, *resources.lines(request.num_trials, plan.max_concurrent)]


def dry_run_lines(request: Request) -> list[str]:
    """Arithmetic, the space with its reasons, and the configuration that trials share."""
    return [
        *(f"# {line}" for line in arithmetic(request, [resources_here()])),
        f"# space {request.space.name}:",
        *(f"#   {line}" for line in request.space.lines()),
        to_yaml(request.config),
    ]


def run_request(
    request: Request, root: Path, resume: bool, progress: Progress, console: Console
) -> SweepSummary:
    """The sweep run or continued, its choices tested, its files written.

    Raises: ConfigError, WorkerError, KeyboardInterrupt: see `run_sweep`.
    """
    plan, space = request.plan, request.space
    prepared = prepare_sweep(plan, space, root, resume, progress)
    if os.environ.get("RAY_ADDRESS"):  # else it was said before Ray was started
        for line in prepared.resources.lines(request.num_trials, plan.max_concurrent):
            console.print(line, highlight=False, soft_wrap=True)
    screened = _screened(request, prepared, progress)
    start: list[Point] = []
    if screened is not None:
        console.print(screened.words(), highlight=False, soft_wrap=True)
        start = screened.points
    searching = make_searching(plan, space, start)
    records = run_sweep(plan, space, searching, root, resume, progress)
    behaviour = _behaviour(prepared, progress)
    choices, before = chosen_and_tested(
        records, behaviour, prepared.folder.root, lambda folder: on_test(folder, progress)
    )
    summary = SweepSummary(
        root=prepared.folder.root,
        plan=plan,
        space=space,
        records=tuple(records),
        choices=choices,
        overhead=overhead(
            records,
            read_times(prepared.folder.root),
            prepared.resources.concurrent(plan.max_concurrent),
        ),
        behaviour=behaviour,
        behaviour_test=before,
        prescreened=screened,
    )
    write_sweep(summary)
    return summary


def _screened(request: Request, prepared: Prepared, progress: Progress) -> Prescreened | None:
    """Points worth training; those of before where the sweep is continued: `open_sweep` has
    removed them if they were found with other settings."""
    root, plan = prepared.folder.root, request.plan
    if not plan.prescreen:
        return None
    found = read_prescreen(root)
    if found is None:
        with progress.stage("prescreen", plan.prescreen):
            found = prescreen(
                prepared.base,
                request.space,
                plan.prescreen,
                plan.num_trials,
                seed=plan.seed,
                on_done=lambda done: progress.display.advance("prescreen", done),
            )
        write_prescreen(found, root)
    return found


def _behaviour(prepared: Prepared, progress: Progress) -> Metrics:
    """The behaviour model on validation, asked once."""
    path = prepared.folder.root / BEHAVIOUR_FILE
    if not path.is_file():
        write_metrics(path, {"behaviour": behaviour_on_validation(prepared.base, progress)})
    return read_metrics(path)["behaviour"]
