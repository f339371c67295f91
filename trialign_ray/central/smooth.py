"""The central problem under a smooth welfare: one mirror ascent.

Shapes: G groups, P players, X questions, K candidates.
"""

from dataclasses import dataclass

from torch import Tensor

from trialign_ray.central.problem import Problem
from trialign_ray.ops.inconsistency import Penalty
from trialign_ray.ops.mirror import MIN_GAP, mirror_ascent
from trialign_ray.ops.welfare import Welfare


@dataclass(frozen=True)
class Prices:
    """What welfare is traded for: lambda D and beta KL."""

    penalty: Penalty
    penalty_weight: float
    kl_weight: float


@dataclass(frozen=True)
class Start:
    """Policy and credits to start from; None for the reference and for equal credits."""

    q_GXK: Tensor | None = None
    credit_P: Tensor | None = None


@dataclass(frozen=True)
class Optimum:
    """q, its players' returns and credits, J(q), a bound on J* - J(q), and the work it took.

    wanted_gap: the bound that was asked for; without it there is no certificate.
    """

    q_GXK: Tensor
    utility_P: Tensor
    credit_P: Tensor
    objective: float
    gap: float
    wanted_gap: float
    num_iterations: int


def solve_smooth(
    problem: Problem,
    welfare: Welfare,
    prices: Prices,
    tol: float,
    max_iterations: int,
    initial_GXK: Tensor | None = None,
    least_gap: float = MIN_GAP,
) -> Optimum:
    """The maximiser for a welfare with a slope everywhere; `gap` may be wider than asked for."""

    def value_and_gradient(q_GXK: Tensor) -> tuple[Tensor, Tensor]:
        utility_P = problem.utility(q_GXK)
        value = welfare.value(utility_P, problem.weights_P, problem.present_P)
        credit_P = welfare.credit(utility_P, problem.weights_P, problem.present_P)
        gradient = problem.utility_gradient(credit_P)
        if prices.penalty_weight == 0:
            return value, gradient
        inconsistency, slope = problem.inconsistency(q_GXK, prices.penalty)
        value = value - prices.penalty_weight * inconsistency
        return value, gradient.sub_(slope, alpha=prices.penalty_weight)

    result = mirror_ascent(
        value_and_gradient,
        problem.reference_GXK,
        prices.kl_weight * problem.kl_scale_GX,
        tol,
        max_iterations,
        initial_GXK=initial_GXK,
        least_gap=least_gap,
    )
    utility_P = problem.utility(result.q_GXK)
    return Optimum(
        q_GXK=result.q_GXK,
        utility_P=utility_P,
        credit_P=welfare.credit(utility_P, problem.weights_P, problem.present_P),
        objective=result.objective,
        gap=result.gap,
        wanted_gap=max(tol * abs(result.objective), least_gap),
        num_iterations=result.num_iterations,
    )
