"""`trialign compare` from its options: plan, checks, Ray, grid, and what is shown at the end."""

import hashlib
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from trialign_ray.checkpoint import write_atomically
from trialign_ray.comparison.cell_results import BEHAVIOUR
from trialign_ray.comparison.compare import TUNING_SEED, TUNING_TRACK, Comparison, Plan, open_root
from trialign_ray.comparison.methods import methods_by_name
from trialign_ray.comparison.worlds import World, worlds_by_name
from trialign_ray.config import load_config
from trialign_ray.errors import ConfigError, Interrupted, TrialignError
from trialign_ray.launch import open_progress

SMOKE_METHODS = (
    *("base", "behaviour", "majority_restyle", "awr_truth", "awr_style", "truth_sft", "dpo"),
    *("gr_dpo", "rewarded_soup", "trialign", "no_penalty"),
)
SMOKE_SETS = (
    "behaviour.epochs=0.5",
    "collect.episodes_per_question=1",
    "clone.steps=12",
    "critic.steps=20",
    "evaluate.num_resamples=100",
    "world.train_fraction=0.12",
    "world.validation_fraction=0.8",
)
"""Seconds per cell: everything runs, no figure means anything."""


def split_names(text: str | None) -> tuple[str, ...]:
    """`a,b` as ("a", "b")."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def split_seeds(text: str) -> tuple[int, ...]:
    """`0-4` or `0,2,5` as numbers. Raises: ConfigError."""
    seeds: list[int] = []
    for part in split_names(text):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(f"--seeds {text!r}: expected numbers such as 0-4 or 0,2,5")
        seeds += range(int(first), int(last if dash else first) + 1)
    if not seeds:
        raise ConfigError(f"--seeds {text!r} names no seed; expected numbers such as 0-4 or 0,2,5")
    return tuple(dict.fromkeys(seeds))


def make_plan(
    config: Path | None,
    sets: list[str],
    methods: tuple[str, ...],
    knobs: tuple[str, ...],
    tracks: tuple[str, ...],
    seeds: tuple[int, ...],
    tune: bool,
    smoke: bool,
    tune_on: str | None = None,
) -> Plan:
    """The plan, checked: names, seeds, and that every cell's configuration is valid.

    Args: tune_on: knob of the world on which settings are chosen; None: the first of `knobs`.
    Raises: ConfigError.
    """
    if smoke:
        methods = methods or SMOKE_METHODS
        sets, tune = [*SMOKE_SETS, *sets], False
    worlds = worlds_by_name(list(knobs), list(tracks), list(seeds))
    if not worlds:
        raise ConfigError("--knobs or --tracks is empty; name at least one of each")
    _refuse_what_worlds_set(sets)
    if tune and TUNING_SEED in seeds:
        raise ConfigError(
            f"seed {TUNING_SEED} is the one that settings are chosen on; leave it out of --seeds, "
            "or use --no-tune"
        )
    if tune and methods and BEHAVIOUR not in methods:
        methods = (BEHAVIOUR, *methods)  # settings are chosen by what they gain over it
    base = str(config.resolve()) if config else None
    digest = hashlib.sha256(config.read_bytes()).hexdigest() if config else None
    shared = ("behaviour.num_threads=1", *sets)
    _check_cells(config, shared, worlds[0], methods)
    track = TUNING_TRACK if TUNING_TRACK in tracks else tracks[-1]
    chosen_on = worlds_by_name([tune_on or knobs[0]], [track], [TUNING_SEED])
    tuning = chosen_on[0] if tune else None
    command = shlex.join(["trialign", *sys.argv[1:]])
    return Plan(methods, knobs, tracks, seeds, tuning, base, digest, shared, command)


def _refuse_what_worlds_set(sets: list[str]) -> None:
    """Raises: ConfigError for an override that every world of the grid would replace."""
    for override in sets:
        key = override.partition("=")[0].strip()
        if key in ("seed", "algorithm", "collect.label_fraction") or key.startswith(
            "world.corruption"
        ):
            raise ConfigError(
                f"--set {override}: the grid itself sets {key}; use --seeds, --methods, --tracks "
                "or --knobs"
            )


def _check_cells(
    config: Path | None, shared: tuple[str, ...], world: World, methods: tuple[str, ...]
) -> None:
    """Raises: ConfigError if some cell's settings are wrong, before anything is fitted."""
    from trialign_ray.checks import check_models, check_names
    from trialign_ray.comparison.cells import Cell
    from trialign_ray.setting import build_setting

    for method in methods_by_name(list(methods) or None):
        for setting in range(len(method.settings)):
            resolved = load_config(config, [*shared, *Cell(world, method, setting).overrides])
            check_names(resolved)
    check_models(resolved)
    build_setting(resolved)


def describe(plan: Plan) -> list[str]:
    """The arithmetic of a plan."""
    methods = methods_by_name(list(plan.methods) or None)
    cells = len(plan.worlds) * len(methods)
    tried = sum(len(m.settings) for m in methods if not m.tuned_as) if plan.tuning else 0
    dialogues = len({w.full for w in plan.worlds}) + bool(plan.tuning)
    return [
        f"methods: {len(methods)}",
        f"worlds: {len(plan.worlds)} ({', '.join(w.name for w in plan.worlds)})",
        f"behaviour models to fit: {dialogues}",
        f"cells to choose settings ({plan.tuning.name if plan.tuning else 'none'}): {tried}",
        f"cells: {cells}",
    ]


def run_comparison(plan: Plan, root: Path, resume: bool, dashboard: bool, cpus: float) -> None:
    """Runs the plan on Ray and shows the tables. Raises: TrialignError if a cell failed, after
    everything else is done and written."""
    root = open_root(plan, root, resume)
    try:
        with open_progress(root) as progress:
            failed = _run_on_ray(plan, root, progress, dashboard, cpus)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"interrupted; go on with the same command and --resume --run-dir {root}"
        ) from error
    show(root)
    if failed:
        name, reason = next(iter(failed.items()))
        raise TrialignError(
            f"{len(failed)} tasks were not done; the first: {name}: {reason}; see its log under "
            f"{root}, then go on with --resume"
        )


def _run_on_ray(
    plan: Plan, root: Path, progress: Any, dashboard: bool, cpus: float
) -> dict[str, str]:
    from trialign_ray.actors.cell_tasks import RayPool
    from trialign_ray.run import start_ray

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # cells run side by side: one thread each
    with progress.stage("ray"):
        available = start_ray(dashboard)
    if available.get("CPU", 0) < cpus:
        raise ConfigError(
            f"a cell needs {cpus:g} CPUs, there are {available.get('CPU', 0):g}; lower --cpus"
        )
    comparison = Comparison(plan, root, progress)
    base = Path(plan.base_config) if plan.base_config else None
    timeout_s = load_config(base, list(plan.sets)).resources.timeout_s
    pools: list[RayPool] = []

    def pool_for(spec: Any) -> RayPool:
        pools.append(RayPool(spec, cpus, max(timeout_s, 600.0)))
        return pools[0]

    try:
        comparison.run(pool_for)
    finally:
        for pool in pools:
            pool.close()
    return comparison.failed


def show(root: Path) -> None:
    """Writes Parquet, Markdown and page of a comparison, and prints its tables."""
    from trialign_ray.comparison.analysis import analyse
    from trialign_ray.comparison.page import write_page
    from trialign_ray.comparison.results import load, write_parquet
    from trialign_ray.comparison.tables import markdown, terminal

    results = load(root)
    write_parquet(results, root)
    analysis = analyse(results)
    write_atomically(root / "comparison.md", markdown(analysis).encode())
    console = Console()
    for table in terminal(analysis):
        console.print(table)
    console.print(f"page: {write_page(analysis, root)}", highlight=False, soft_wrap=True)
