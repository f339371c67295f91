"""The command that searches: tune."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from trialign_ray.commands.options import (
    EXIT_FAILED,
    ConfigPath,
    Dashboard,
    DryRun,
    Resume,
    RunDir,
    Seed,
    Sets,
)
from trialign_ray.launch import open_progress

if TYPE_CHECKING:
    from tuning.sweep_plan import SweepPlan

app = typer.Typer()
SEARCH_HELP = (
    "tpe, nsga2, random, grid, asha or pbt. With several trials at once the points of tpe, nsga2 "
    "and asha depend on the order in which trials end, not on the seed alone."
)


@app.command()
def tune(
    config: ConfigPath = None,
    run_dir: RunDir = None,
    space: Annotated[
        str | None, typer.Option(help="penalties, default, all, or a YAML file of ranges.")
    ] = None,
    search: Annotated[str, typer.Option(help=SEARCH_HELP)] = "tpe",
    num_trials: Annotated[int, typer.Option(min=1, help="How many settings to train.")] = 12,
    prescreen: Annotated[
        int, typer.Option(min=0, help="Sweep so many points on the log; train the best of them.")
    ] = 0,
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, help="Trials at once; as many as fit if left out.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="What asha and pbt go by; the others trade three objectives.")
    ] = "worst_truth",
    logger: Annotated[
        str, typer.Option(help="Comma-separated: tensorboard, mlflow, wandb.")
    ] = "tensorboard",
    seed: Seed = None,
    sets: Sets = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    dashboard: Dashboard = False,
) -> None:
    """Search penalty weights with Ray Tune: what can be had, and the best per preference.

    Resume trusted folders only: Ray Tune keeps its state as pickles.
    """
    from trialign_ray.checks import check_names
    from tuning.sweep_launch import dry_run_lines, make_request

    plan = _plan(
        config,
        sets,
        seed,
        logger,
        num_trials=num_trials,
        prescreen=prescreen,
        search=search,
        metric=metric,
        max_concurrent=max_concurrent,
    )
    request = make_request(plan, space, check_names)
    if dry_run:
        print("\n".join(dry_run_lines(request)))
        return
    _run(request, run_dir or _default_root(config), resume, dashboard)


def _default_root(config: Path | None) -> Path:
    from trialign_ray.launch import default_dir

    return Path("runs") / ("tune" if config is None else f"{default_dir(config).name}-tune")


def _plan(
    config: Path | None, sets: list[str] | None, seed: int | None, logger: str, **options: Any
) -> "SweepPlan":
    """Args: options: further fields of the plan; `make_request` checks them."""
    from trialign_ray.comparison.launch import split_names
    from trialign_ray.launch import resolved_config
    from tuning.sweep_plan import SweepPlan

    return SweepPlan(
        config_path=str(config.resolve()) if config else None,
        sets=(*(sets or []), *([] if seed is None else [f"seed={seed}"])),
        seed=resolved_config(config, sets, seed).seed,
        loggers=split_names(logger),
        **options,
    )


def _run(request: object, root: Path, resume: bool, dashboard: bool) -> None:
    """Runs the sweep and shows it. Exit code 1 if a trial failed."""
    import os

    from trialign_ray.errors import Interrupted
    from trialign_ray.run import start_ray
    from trialign_ray.run_plan import resources_here
    from tuning.sweep_launch import Request, arithmetic, run_request
    from tuning.sweep_lock import sole_driver
    from tuning.sweep_tables import show_sweep

    assert isinstance(request, Request)
    console = Console()
    if not os.environ.get("RAY_ADDRESS"):
        for line in arithmetic(request, [resources_here()]):
            console.print(line, highlight=False, soft_wrap=True)
    _require_sweep_folder(root, resume)
    root.mkdir(parents=True, exist_ok=True)
    try:
        with sole_driver(root), open_progress(root) as progress:
            if dashboard:
                with progress.stage("ray"):
                    start_ray(dashboard)
            summary = run_request(request, root, resume, progress, console)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"interrupted; go on with the same command and --resume --run-dir {root}"
        ) from error
    show_sweep(summary, console)
    raise typer.Exit(EXIT_FAILED if summary.failed else 0)


def _require_sweep_folder(root: Path, resume: bool) -> None:
    """Raises: ConfigError if something is there that is not to be continued, or is no sweep. What
    a start leaves that failed before the sweep was opened is nothing."""
    from trialign_ray.errors import ConfigError
    from trialign_ray.resuming import is_used, require_free
    from tuning.sweep_lock import LOCK_FILE
    from tuning.trial_folder import SweepFolder

    left = {"tensorboard", "metrics.jsonl", LOCK_FILE}
    if root.is_dir() and {p.name for p in root.iterdir() if p.suffix != ".tmp"} <= left:
        return
    require_free(root, resume)
    if is_used(root) and not SweepFolder(root).state_file.is_file():
        raise ConfigError(f"{root} holds no sweep to resume; choose another --run-dir")
