"""Search by name, ready for Ray Tune: tpe, nsga2, random, grid, asha, pbt.

A search draws points of the space; what a trial is handed is `Space.settings` of it. So a searcher
proposes numbers, and trials get rounded ones, without what they would not read. Every draw comes
from one seed, but for PBT's, which Tune makes with Python's global generator. TPE, ASHA's TPE and
NSGA-II also look at the trials that have ended: with two or more at once, their points depend on
the order in which those end, so the same seed may search elsewhere; random and grid never do.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator, Searcher
from ray.tune.search.optuna import OptunaSearch

from envs.errors import ConfigError
from tuning.search_points import GRID_LEVELS, grid_points
from tuning.search_space import Point, Space
from tuning.sweep_plan import OBJECTIVES, Searching, SweepPlan

LOWERED = ("truth_gap",)
"""Metrics that are better when lower."""
MOVABLE_CLONE_KEYS = ("learning_rate", "kl_weight", "temperature", "pair_beta", "min_target")
"""Keys of `clone` that may change while adapters train on."""
MAX_GRID = 20_000
HALVING = 2
"""ASHA keeps one trial of so many at every rung."""


class ListedPoints(Searcher):
    """The given settings, one trial each, in their order."""

    def __init__(self, settings: Sequence[Point]):
        super().__init__()
        self._settings, self._next = list(settings), 0

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        if self._next >= len(self._settings):
            return Searcher.FINISHED
        self._next += 1
        return self._settings[self._next - 1]

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        state = {"settings": self._settings, "next": self._next}
        Path(checkpoint_path).write_text(json.dumps(state), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        state = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        self._settings, self._next = state["settings"], state["next"]


class SettingsOf(Searcher):
    """Another searcher's points as settings. `searcher` is the name by which Tune finds what to
    save and restore."""

    def __init__(self, searcher: Searcher, space: Space):
        super().__init__(metric=searcher.metric, mode=searcher.mode)
        self.searcher, self._space = searcher, space

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        point = self.searcher.suggest(trial_id)
        return self._space.settings(point) if isinstance(point, dict) else point

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self.searcher.on_trial_complete(trial_id, result=result, error=error)

    def save(self, checkpoint_path: str) -> None:
        self.searcher.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        self.searcher.restore(checkpoint_path)

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        pass


def make_searching(plan: SweepPlan, space: Space, start: Sequence[Point] = ()) -> Searching:
    """What Tune is handed for `plan.search`.

    Args: start: points to train before the search draws its own, at most `plan.num_trials` of
    them count (see `prescreen`). Raises: ConfigError where the search cannot do what is asked.
    """
    plan.check()
    start = list(start)[: plan.num_trials]
    if plan.search == "pbt":
        return _population(plan, space, start)
    if plan.search == "grid":
        if start:
            raise ConfigError("a grid has its own points; use --prescreen with another --search")
        settings = grid_settings(space, plan.num_trials)
        return Searching(ListedPoints(settings), None, {}, len(settings))
    if plan.search == "random":
        points = [*start, *random_points(space, plan.num_trials - len(start), plan.seed)]
        settings = [space.settings(p) for p in points]
        return Searching(ListedPoints(settings), None, {}, len(settings))
    optuna = SettingsOf(_optuna(plan, space, start), space)
    return Searching(optuna, scheduler_of(plan, space), {}, plan.num_trials)


def random_points(space: Space, count: int, seed: int) -> list[Point]:
    """So many independent draws; a longer list begins with a shorter one's points."""
    generator = np.random.default_rng(seed)
    shares = generator.random((count, len(space.dimensions)))
    return [
        {d.key: d.at(share) for d, share in zip(space.dimensions, row, strict=True)}
        for row in shares
    ]


def grid_settings(space: Space, most: int | None = None) -> list[Point]:
    """Settings of all grid points; points that differ in what they do not read are one."""
    found = {}
    points = grid_points(space.dimensions)
    for point in points[:MAX_GRID]:
        settings = space.settings(point)
        found.setdefault(json.dumps(settings, sort_keys=True), settings)
    if len(points) > MAX_GRID or (most is not None and len(found) > most):
        count = len(found) if len(points) <= MAX_GRID else len(points)
        levels = ", ".join(f"{d.key} {len(d.levels(GRID_LEVELS))}" for d in space.dimensions)
        raise ConfigError(
            f"the grid has {count} points ({levels}), --num-trials is {most}; search fewer "
            f"dimensions (a range counts {GRID_LEVELS} values), raise --num-trials, or use "
            "--search random"
        )
    return list(found.values())


def mode_of(metric: str) -> str:
    """Tune's "max" or "min"."""
    return "min" if metric in LOWERED else "max"


def scheduler_of(plan: SweepPlan, space: Space) -> TrialScheduler | None:
    """ASHA over rungs of the declared metric; none for searches that train every trial out."""
    if plan.search != "asha":
        return None
    return ASHAScheduler(
        time_attr="training_iteration",
        metric=plan.metric,
        mode=mode_of(plan.metric),
        max_t=len(plan.rungs(space.config.clone.steps)),
        grace_period=1,
        reduction_factor=HALVING,
    )


def _optuna(plan: SweepPlan, space: Space, start: Sequence[Point]) -> OptunaSearch:
    """Multi-objective by default; asha's trials are suggested for its one metric."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # its own lines would break the bars
    metric: Any = list(OBJECTIVES)
    mode: Any = [mode_of(name) for name in OBJECTIVES]
    if plan.search == "asha":
        metric, mode = plan.metric, mode_of(plan.metric)
    return OptunaSearch(
        space=OptunaSearch.convert_search_space(space.param_space()),
        metric=metric,
        mode=mode,
        points_to_evaluate=list(start),
        sampler=_sampler(plan),
    )


def _sampler(plan: SweepPlan) -> Any:
    """Seeded. A third of a short sweep is drawn at random before TPE models what it saw; NSGA-II
    needs some generations, so its population is a quarter of the trials."""
    import optuna

    if plan.search == "nsga2":
        population = min(50, max(4, plan.num_trials // 4))
        return optuna.samplers.NSGAIISampler(population_size=population, seed=plan.seed)
    startup = min(10, max(2, plan.num_trials // 3))
    return optuna.samplers.TPESampler(n_startup_trials=startup, seed=plan.seed)


def _population(plan: SweepPlan, space: Space, start: Sequence[Point]) -> Searching:
    """PBT: all trials train side by side; the worst take over the best ones' adapters, and move on
    from their settings."""
    for dimension in space.dimensions:
        section, _, name = dimension.key.partition(".")
        if section == "algorithm" or (section == "clone" and name not in MOVABLE_CLONE_KEYS):
            raise ConfigError(
                f"pbt cannot search {dimension.key}: a trial goes on with another's adapters, which"
                f" must fit; leave it out (of clone: {', '.join(MOVABLE_CLONE_KEYS)} may be "
                "searched), or use --search asha"
            )
    points = [*start, *random_points(space, plan.num_trials - len(start), plan.seed)]
    values = [space.values(p) for p in points]
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        metric=plan.metric,
        mode=mode_of(plan.metric),
        perturbation_interval=1,
        hyperparam_mutations={
            d.key: list(d.bounds) if d.kind == "choice" else d.domain() for d in space.dimensions
        },
        custom_explore_fn=space.values,
    )
    generator = BasicVariantGenerator(points_to_evaluate=values, random_state=plan.seed)
    return Searching(generator, scheduler, space.param_space(), len(values))
