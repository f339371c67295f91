"""The command line. Heavy libraries are imported inside the commands, so that --help is quick."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trialign_ray import __version__
from trialign_ray.errors import ConvergenceError, Interrupted, TrialignError, WorkerError
from trialign_ray.launch import default_dir, launch, open_progress, resolved_config, show_result

EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED = 2, 1, 130

app = typer.Typer(
    help="TriAlign on Ray: personalize a language model for groups, keep facts equal for all.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Logs of dialogues.", no_args_is_help=True)
config_app = typer.Typer(help="The configuration.", no_args_is_help=True)
world_app = typer.Typer(help="TruthWorld, the embedded benchmark.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(config_app, name="config")
app.add_typer(world_app, name="world")

ConfigPath = Annotated[Path | None, typer.Argument(help="YAML file; the defaults if left out.")]
RunPath = Annotated[Path, typer.Argument(help="Run directory, e.g. runs/quickstart.")]
RunDir = Annotated[
    Path | None,
    typer.Option("--run-dir", help="Where results go; runs/<name of the YAML> if left out."),
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key: section.key=value. Repeatable.")
]
Seed = Annotated[int | None, typer.Option(help="One seed decides everything random.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show configuration and resources; start nothing.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run directory, if there is one.")
]
Dashboard = Annotated[bool, typer.Option(help="Start the Ray dashboard with a local Ray.")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


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
    setting = build_setting(config)
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


@app.command()
def report(run: RunPath) -> None:
    """Write report.html and report.md of a run again, from its evaluation.json."""
    from trialign_ray.report import write_report
    from trialign_ray.run_directory import existing_run

    run_dir, _ = existing_run(run)
    print(write_report(run_dir))


@app.command()
def doctor() -> None:
    """Check this machine: Python, packages, CPUs, memory, disk, and a Ray that starts."""
    from trialign_ray.doctor import examine

    healthy = True
    console = Console()
    for finding in examine():
        healthy &= finding.ok
        mark = "[green]ok  [/green]" if finding.ok else "[red]FAIL[/red]"
        console.print(f"{mark} {finding.what}: {finding.detail}", highlight=False)
    raise typer.Exit(0 if healthy else EXIT_FAILED)


@data_app.command("check")
def data_check(file: Annotated[Path, typer.Argument(help="Parquet log.")]) -> None:
    """Say what is wrong with a log, row by row; exit code 2 if anything is."""
    from trialign_ray.dataset import check_dataset, read_dataset

    problems = check_dataset(file)
    for problem in problems[:20]:
        print(f"{file}: {problem}", file=sys.stderr)
    if len(problems) > 20:
        print(f"{file}: and {len(problems) - 20} more", file=sys.stderr)
    if problems:
        raise typer.Exit(EXIT_BAD_INPUT)
    rows = read_dataset(file)
    questions = {r["question_id"] for r in rows}
    print(
        f"{file}: sound; {len(rows)} rows, {len(questions)} questions, groups "
        f"{', '.join(rows[0]['group_ids'])}"
    )


@config_app.command("show")
def config_show(config: ConfigPath = None, sets: Sets = None, seed: Seed = None) -> None:
    """Print the resolved configuration as YAML; a file to start from."""
    from trialign_ray.checks import check_names
    from trialign_ray.config import to_yaml

    resolved = resolved_config(config, sets, seed)
    check_names(resolved)
    print(to_yaml(resolved), end="")


@config_app.command("schema")
def config_schema() -> None:
    """Print every key with its default and meaning as JSON schema."""
    import json

    from trialign_ray.config import Config

    print(json.dumps(Config.model_json_schema(), indent=2))


@world_app.command("build")
def world_build(
    out: Annotated[Path, typer.Option(help="Folder for the model; must not exist.")],
    epochs: Annotated[float | None, typer.Option(help="Passes over the facts corpus.")] = None,
    workers: Annotated[int, typer.Option(help="Data-parallel Ray Train workers.")] = 1,
) -> None:
    """Train the tiny facts base from nothing, by the recipe that built the shipped one."""
    from trialign_ray.run import start_ray
    from trialign_ray.tiny_lm import BaseRecipe, build_facts_base

    recipe = BaseRecipe() if epochs is None else BaseRecipe(epochs=epochs)
    start_ray()
    accuracy = build_facts_base(out.resolve(), recipe, workers)
    for group, value in accuracy.items():
        print(f"{group}: {value:.3f}")


def main() -> None:
    """Entry point: honest exit codes, one message per error."""
    level = os.environ.get("TRIALIGN_LOG_LEVEL", "WARNING").upper()
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except TrialignError as error:
        if isinstance(error, Interrupted):
            print(error, file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)
        print(f"error: {error}", file=sys.stderr)
        failed = isinstance(error, WorkerError | ConvergenceError)
        sys.exit(EXIT_FAILED if failed else EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print("interrupted; go on with --resume", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
