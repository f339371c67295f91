"""The central problem under many settings of one log, before anything is trained.

Settings that differ in lambda and beta alone make a chain; each is solved from the solution of the
one before it. All of it runs in one thread: tensors are too small to be worth dividing.

Shapes: G groups, X questions, K candidates (padded).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trialign_ray.actors.critic_learner import solution_summary
from trialign_ray.algorithms.trialign import chosen_welfare
from trialign_ray.config import Config, parse_config
from trialign_ray.config_sections import TargetsConfig
from trialign_ray.critic import known_objectives, objective_values, weighted_values
from trialign_ray.errors import ConfigError, ConvergenceError
from trialign_ray.ops.inconsistency import penalty_by_name
from trialign_ray.targets import CentralSolution, solve_central
from trialign_ray.targets_prediction import METHOD, Prediction, SweptLog

Settings = dict[str, Any]
"""Values of keys of `targets`; where a key is missing, the run's own value."""
CHAINED_KEYS = ("penalty_weight", "kl_weight")


@dataclass(frozen=True)
class Point:
    """One setting with what it promises, or with the reason why it has no certified solution.

    welfare: W(U). credit: dW/dU by objective and group. gap: bound on the distance of the objective
    from its maximum.
    """

    settings: Settings
    prediction: Prediction | None = None
    welfare: float | None = None
    credit: dict[str, dict[str, float]] | None = None
    gap: float | None = None
    num_iterations: int = 0
    failure: str = ""
    wall_s: float = 0.0

    @property
    def promise(self) -> Prediction:
        """The prediction of a point that was solved."""
        assert self.prediction is not None, self.failure
        return self.prediction


def overrides_of(config: Config, settings: Settings) -> list[str]:
    """What to give to `--set`, on top of the run's configuration, to train with the setting."""
    overrides = [] if config.algorithm == METHOD else [f"algorithm={METHOD}"]
    if config.targets.target_inconsistency is not None:
        overrides.append("targets.target_inconsistency=null")
    return [*overrides, *(f"targets.{key}={value}" for key, value in settings.items())]


def swept_targets(config: Config, settings: Settings) -> TargetsConfig:
    """Targets of a setting; lambda is what it says, never searched for. Raises: ConfigError."""
    tree = config.model_dump(mode="json")
    tree["targets"] |= {"target_inconsistency": None, **settings}
    return parse_config(tree, f"setting {settings}").targets


def solve_setting(
    log: SweptLog, targets: TargetsConfig, initial_GXK: Tensor | None = None
) -> CentralSolution:
    """The central problem of TriAlign under other targets. Raises: as `solve_central`."""
    tensors = log.problem.tensors
    if targets.players == "group_objectives":
        value, known_JG = objective_values(tensors), known_objectives(tensors)
    else:
        weights = (targets.truth_weight, targets.personalization_weight)
        value, known_JG = weighted_values(tensors, *weights), None
    return solve_central(
        value,
        tensors.reference_GXK,
        tensors.answer_GXK,
        tensors.is_truth_X,
        welfare=chosen_welfare(targets),
        penalty=penalty_by_name(targets.penalty),
        penalty_weight=targets.penalty_weight,
        kl_weight=targets.kl_weight,
        weights_G=log.problem.weights_G,
        candidate_mask_GXK=tensors.mask_GXK,
        player_present_JG=known_JG,
        tol=targets.tolerance,
        initial_GXK=initial_GXK,
    )


def sweep(
    log: SweptLog, grid: Sequence[Settings], on_done: Callable[[int], None] | None = None
) -> list[Point]:
    """Every setting solved, in the grid's order; one without a certificate is kept as failed.

    Args: on_done: called with the number of settings done so far. Raises: ConfigError for an empty
    grid or a value that is not allowed; ConvergenceError if not one setting was solved.
    """
    if not grid:
        raise ConfigError("the grid has no setting; give at least one")
    for settings in grid:
        swept_targets(log.config, settings)
    found: dict[int, Point] = {}
    with one_torch_thread():
        for chain in chains_of(grid):
            points = solve_chain(log, [grid[i] for i in chain])
            found |= dict(zip(chain, points, strict=True))
            if on_done is not None:
                on_done(len(found))
    points = [found[i] for i in range(len(grid))]
    if all(p.prediction is None for p in points):
        raise ConvergenceError(
            f"none of {len(points)} settings has a certified solution; the first, "
            f"{points[0].settings}: {points[0].failure}"
        )
    return points


def chains_of(grid: Sequence[Settings]) -> list[list[int]]:
    """Indices of settings that differ in lambda and beta alone, in the grid's order."""
    chains: dict[tuple[Any, ...], list[int]] = {}
    for i, settings in enumerate(grid):
        rest = tuple((k, repr(v)) for k, v in sorted(settings.items()) if k not in CHAINED_KEYS)
        chains.setdefault(rest, []).append(i)
    return list(chains.values())


def solve_chain(log: SweptLog, chain: Sequence[Settings]) -> list[Point]:
    """Settings in order, each from the solution of the last that has one."""
    points, near = [], None
    for settings in chain:
        started = time.perf_counter()
        targets = swept_targets(log.config, settings)
        try:
            solution = solve_setting(log, targets, near)
        except ConvergenceError as error:
            wall_s = time.perf_counter() - started
            points.append(Point(settings, failure=str(error), wall_s=wall_s))
            continue
        near = solution.policy_GXK
        points.append(_point(log, settings, targets, solution, started))
    return points


def _point(
    log: SweptLog,
    settings: Settings,
    targets: TargetsConfig,
    solution: CentralSolution,
    started: float,
) -> Point:
    prediction = log.predict(solution.policy_GXK)
    paid = targets.penalty_weight * solution.inconsistency + targets.kl_weight * prediction.kl
    return Point(
        settings=settings,
        prediction=prediction,
        welfare=solution.objective + paid,
        credit=solution_summary(log.groups, solution)["credit"],
        gap=solution.gap,
        num_iterations=solution.num_iterations,
        wall_s=time.perf_counter() - started,
    )


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Torch on one thread, and as before afterwards. On a log of 300 questions and shared cores a
    second thread makes a sweep many times slower, not faster."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
