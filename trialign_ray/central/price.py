"""Dual ascent: the least price of inconsistency that brings it down to a target.

h(lambda) = max_q [W - beta KL - lambda (D - target)] is convex in lambda with slope target - D, so
D falls as lambda rises and the dual optimum is where D crosses the target.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from trialign_ray.errors import ConvergenceError

PRECISION = 1e-3
"""The search ends when lambda, or D below its target, is this near (relative)."""
GROWTH = 4.0
MAX_TRIALS = 60


class Priced(Protocol):
    """A solution at some price."""

    @property
    def inconsistency(self) -> float: ...


Solution = TypeVar("Solution", bound=Priced)


def least_price(
    solve: Callable[[float, Solution | None], Solution],
    target: float,
    first: float,
    largest: float,
) -> tuple[Solution, float]:
    """The solution with D <= target of least price, and that price; 0 where D is low for free.

    Args: solve: price and a solution to start from -> solution. target: >= 0, in D's units.
    first: a first positive price. largest: where to give up.
    Raises: ConvergenceError, naming the least inconsistency that was reached.
    """
    below, low = solve(0.0, None), 0.0
    if below.inconsistency <= target:
        return below, 0.0
    free, high = below.inconsistency, min(first, largest)
    above = solve(high, below)
    while above.inconsistency > target:
        if high >= largest:
            raise ConvergenceError(
                f"inconsistency {target:g} is out of reach: penalty weight {high:g}, the largest "
                f"allowed, reaches {above.inconsistency:.4g} (weight 0: {free:.4g}); "
                "raise the target or the largest penalty weight; groups without a common answer "
                "among their candidates cannot agree at any weight (targets.borrow_peers)"
            )
        below, low, high = above, high, min(GROWTH * high, largest)
        above = solve(high, below)
    return _narrow(solve, target, (below, low), (above, high))


def _narrow(
    solve: Callable[[float, Solution | None], Solution],
    target: float,
    below: tuple[Solution, float],
    above: tuple[Solution, float],
) -> tuple[Solution, float]:
    """Secant steps between a price too low and one that suffices; every third step halves."""
    for trial in range(1, MAX_TRIALS):
        (worse, low), (better, high) = below, above
        if high - low <= PRECISION * high or better.inconsistency >= (1 - PRECISION) * target:
            break
        aim = (1 - PRECISION / 2) * target
        share = 0.5
        if trial % 3:
            share = _share(worse.inconsistency, better.inconsistency, aim)
        price = low + share * (high - low)
        found = solve(price, better)
        if found.inconsistency <= target:
            above = (found, price)
        else:
            below = (found, price)
    return above


def _share(worse: float, better: float, aim: float) -> float:
    """Where between two prices to look: D falls as 1 / price^2, so D^-1/2 is near linear."""
    if better <= 0:
        return 0.5
    start, end, goal = worse**-0.5, better**-0.5, aim**-0.5
    return min(max((goal - start) / (end - start), 0.01), 0.99)
