"""From a command's options to a run: what is cheap is checked first, only then Ray starts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from trialign_ray.errors import Interrupted


def launch(
    config_path: Path | None,
    run_dir: Path,
    seed: int | None,
    sets: list[str] | None,
    dry_run: bool,
    resume: bool,
    dashboard: bool,
    until: str = "report",
) -> None:
    """Everything cheap is checked first; only then Ray starts."""
    from trialign_ray import checks
    from trialign_ray.run_directory import open_run
    from trialign_ray.run_plan import resources_here
    from trialign_ray.setting import build_setting

    config = resolved_config(config_path, sets, seed)
    checks.check_names(config)
    if dry_run:
        _show_plan(config, build_setting(config.judged_by_rules), run_dir)
        return
    setting = build_setting(config, run_dir)
    checks.warn_of_short_answers(config, setting)
    checks.check_models(config)
    checks.check_vocabulary(config, setting)
    if not os.environ.get("RAY_ADDRESS"):
        checks.check_resources(config, len(setting.groups), resources_here())
    opened = open_run(run_dir, config, resume)
    checks.check_log(opened, setting, None)
    _execute(config, setting, opened, dashboard, until)


def _show_plan(config: Any, setting: Any, run_dir: Path) -> None:
    """What a run would take, and its configuration. A model of the Hub need not be there yet."""
    from trialign_ray import run_plan
    from trialign_ray.checks import check_resources
    from trialign_ray.config import to_yaml

    print(f"# run directory: {run_dir}" + (" (exists)" if run_dir.exists() else ""))
    for name, value in run_plan.plan(config, setting).items():
        print(f"# {name}: {value:g}")
    for line in run_plan.memory_lines(config, setting):
        print(f"# {line}")
    if not os.environ.get("RAY_ADDRESS"):
        check_resources(config, len(setting.groups), run_plan.resources_here())
    print(to_yaml(config))


def _execute(config: Any, setting: Any, run_dir: Any, dashboard: bool, until: str) -> None:
    from trialign_ray import checks
    from trialign_ray.run import run, start_ray

    try:
        with open_progress(run_dir.root) as progress:
            with progress.stage("ray"):
                available = start_ray(dashboard)
            checks.check_resources(config, len(setting.groups), available)
            run(config, setting, run_dir, progress, until)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"interrupted; go on with the same command and --resume --run-dir {run_dir.root}"
        ) from error
    if until == "report":
        show_result(run_dir)
    else:
        print(f"log: {run_dir.log_file}")


def show_result(run_dir: Any) -> None:
    from trialign_ray.display import result_table, shared_table
    from trialign_ray.guard import guard_sentence, read_guard
    from trialign_ray.summary import read_evaluation, summarise

    summary = summarise(read_evaluation(run_dir), run_dir)
    console = Console()
    console.print(result_table(summary))
    console.print(shared_table(summary))
    console.print(
        f"worst group's truth: {summary.worst_before:.3f} -> {summary.worst_after:.3f}",
        highlight=False,
    )
    guard = read_guard(run_dir)
    if guard is not None and guard["passed"] is False:
        console.print(guard_sentence(guard), style="red", highlight=False, soft_wrap=True)
    seconds = ", ".join(f"{k} {v:.0f}" for k, v in summary.seconds_by_stage.items())
    total_s = sum(summary.seconds_by_stage.values())
    console.print(f"time: {total_s:.0f} s ({seconds})", highlight=False, soft_wrap=True)
    console.print(f"report: {run_dir.root / 'report.html'}", highlight=False, soft_wrap=True)


@contextmanager
def open_progress(folder: Path) -> Iterator[Any]:
    """Progress of what is run in `folder`: bars on a terminal, plain lines elsewhere."""
    from trialign_ray.display import LineDisplay, RichDisplay
    from trialign_ray.progress import Progress

    console = Console()
    display = RichDisplay(console) if console.is_terminal else LineDisplay(console)
    progress = Progress(folder, display)
    try:
        yield progress
    finally:
        progress.close()
        display.close()


def resolved_config(path: Path | None, sets: list[str] | None, seed: int | None) -> Any:
    from trialign_ray.config import load_config

    overrides = list(sets or [])
    if seed is not None:
        overrides.append(f"seed={seed}")
    return load_config(path, overrides)


def default_dir(config: Path | None) -> Path:
    return Path("runs") / (config.stem if config else "default")
