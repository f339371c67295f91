"""Commands that set runs side by side: compare, frontier."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trialign_ray.commands.options import (
    EXIT_FAILED,
    ConfigPath,
    Dashboard,
    DryRun,
    Resume,
    RunDir,
    RunPath,
    Sets,
)
from trialign_ray.launch import open_progress

app = typer.Typer()


@app.command()
def compare(
    config: ConfigPath = None,
    run_dir: RunDir = None,
    methods: Annotated[
        str | None, typer.Option(help="Comma-separated names; all if left out.")
    ] = None,
    knobs: Annotated[str, typer.Option(help="Corruptions, of clean,A,A+S,B,F,A+F+S.")] = "A+S",
    tracks: Annotated[str, typer.Option(help="Shares verified, of T0,T1,T2,T3.")] = "T2",
    seeds: Annotated[str, typer.Option(help="Seeds, e.g. 0-4.")] = "0-4",
    tune: Annotated[bool, typer.Option(help="Choose settings on a world of its own first.")] = True,
    tune_on: Annotated[
        str | None, typer.Option(help="Knob of that world; the first of --knobs if left out.")
    ] = None,
    smoke: Annotated[bool, typer.Option(help="A few methods, tiny; to see that it runs.")] = False,
    cpus: Annotated[float, typer.Option(min=0.01, help="CPUs that a cell reserves.")] = 1.0,
    sets: Sets = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    dashboard: Dashboard = False,
) -> None:
    """Methods x worlds x seeds on TruthWorld: tables with intervals, losing rows printed."""
    from trialign_ray.comparison import launch as comparison

    names = comparison.split_names
    plan = comparison.make_plan(
        *(config, list(sets or []), names(methods), names(knobs), names(tracks)),
        seeds=(0,) if smoke and seeds == "0-4" else comparison.split_seeds(seeds),
        tune=tune,
        smoke=smoke,
        tune_on=tune_on,
    )
    print("\n".join(comparison.describe(plan)), flush=True)
    if not dry_run:
        where = run_dir or Path("runs") / ("compare-smoke" if smoke else "compare")
        comparison.run_comparison(plan, where, resume, dashboard, cpus)


@app.command()
def frontier(
    run: RunPath,
    settings: Annotated[
        int | None, typer.Option(min=1, help="How many settings to solve; the whole grid if out.")
    ] = None,
    train: Annotated[
        int, typer.Option(min=0, help="Train so many of them: promise against result.")
    ] = 0,
    sets: Sets = None,
    dashboard: Dashboard = False,
) -> None:
    """Sweep penalty, KL and welfare on a run's log, before anything is trained."""
    from trialign_ray.run import start_ray
    from trialign_ray.run_directory import existing_run
    from tuning.frontier import run_frontier
    from tuning.frontier_tables import show_frontier
    from tuning.frontier_training import train_here, train_on_ray

    root = existing_run(run)[0].root
    with open_progress(root / "frontier") as progress:
        if train:
            with progress.stage("ray"):
                start_ray(dashboard)
        trainer = train_on_ray if train else train_here
        options = {"progress": progress, "trainer": trainer, "sets": tuple(sets or ())}
        summary = run_frontier(root, train, settings, **options)
    show_frontier(summary, Console())
    raise typer.Exit(EXIT_FAILED if summary.broken else 0)
