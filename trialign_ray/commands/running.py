"""Commands that make or finish a run."""

from pathlib import Path

import typer

from trialign_ray.commands.options import (
    ConfigPath,
    Dashboard,
    DryRun,
    Resume,
    RunDir,
    RunPath,
    Seed,
    Sets,
)
from trialign_ray.launch import default_dir, launch, open_progress, show_result

app = typer.Typer()


@app.command()
def quickstart(
    run_dir: RunDir = None,
    seed: Seed = None,
    sets: Sets = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    dashboard: Dashboard = False,
) -> None:
    """The whole way on the embedded world: no network, no GPU, no configuration."""
    launch(None, run_dir or Path("runs/quickstart"), seed, sets, dry_run, resume, dashboard)


@app.command()
def train(
    config: ConfigPath = None,
    run_dir: RunDir = None,
    seed: Seed = None,
    sets: Sets = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    dashboard: Dashboard = False,
) -> None:
    """Collect, train, evaluate and report; stages whose results are there are not run again."""
    launch(config, run_dir or default_dir(config), seed, sets, dry_run, resume, dashboard)


@app.command()
def collect(
    config: ConfigPath = None,
    run_dir: RunDir = None,
    seed: Seed = None,
    sets: Sets = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    dashboard: Dashboard = False,
) -> None:
    """Only collect the log; `train --resume` goes on from there."""
    where = run_dir or default_dir(config)
    launch(config, where, seed, sets, dry_run, resume, dashboard, until="collect")


@app.command()
def evaluate(run: RunPath, dashboard: Dashboard = False) -> None:
    """Evaluate a trained run's adapters again and rewrite evaluation.json and the report."""
    from trialign_ray.checks import check_adapters, check_resources
    from trialign_ray.run import make_recipe, start_ray
    from trialign_ray.run_directory import existing_run
    from trialign_ray.setting import build_setting

    run_dir, config = existing_run(run)
    setting = build_setting(config, run_dir.root)
    with open_progress(run_dir.root) as progress:
        recipe = make_recipe(config, setting, run_dir, progress)
        check_adapters(run_dir, setting, recipe.assembly.behaviour_id)
        with progress.stage("ray"):
            available = start_ray(dashboard)
        check_resources(config, len(setting.groups), available)
        try:
            recipe.evaluate(again=True)
            recipe.report()
        finally:
            recipe.close()
    show_result(run_dir)


@app.command()
def report(run: RunPath) -> None:
    """Write report.html and report.md of a run again, from its evaluation.json."""
    from trialign_ray.report import write_report
    from trialign_ray.run_directory import existing_run

    run_dir, _ = existing_run(run)
    print(write_report(run_dir))
