"""Mirror ascent on products of simplices with a KL term to a reference, and its certificate.

Shapes: G groups, X questions, K candidates, M remembered steps, N = G * X * K.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps q_GXK to (f(q), df/dq_GXK), f concave."""

MEMORY = 5
"""How many earlier steps the extrapolation looks at."""
MIN_STEP = 1e-12
STEP_GROWTH = 1.2
MIN_LOG = -700.0
"""Least log-probability of a candidate: below it exp underflows and entropies lose their slope."""
NO_LOG = -1e30
"""Log-probability where there is no candidate: exp gives 0, and sums stay free of inf - inf."""
MIN_GAP = 1e-12
"""Absolute gap that always suffices, for an objective of nearly 0."""
GAP_GROWTH = 10.0
"""Most that a step may widen the gap: J alone does not see a q near 0 going astray."""
ROUNDING = 1e-15
"""Relative fall of J that is rounding and not a failed step."""


@dataclass(frozen=True)
class MirrorResult:
    """`objective` is J(q) = f(q) - sum_gx s_gx KL(q_gx || mu_gx); `gap` bounds J* - J(q)."""

    q_GXK: Tensor
    objective: float
    gap: float
    num_iterations: int


def mirror_ascent(
    objective: Objective,
    reference_GXK: Tensor,
    kl_scale_GX: Tensor,
    tol: float,
    max_iterations: int,
    *,
    initial_GXK: Tensor | None = None,
    least_gap: float = MIN_GAP,
) -> MirrorResult:
    """The maximiser of f(q) - sum_gx s_gx KL(q_gx || mu_gx), with an upper bound on its error.

    Step (mirror descent with the KL term in closed form; Beck and Teboulle 2003,
    doi 10.1016/S0167-6377(02)00231-6): q <- normalise(q^(1-eta) t^eta), where
    t = normalise(mu exp(df/dq / s)), eta halved until J does not fall (nor the gap widen much).
    Steps are extrapolated from the last few (`_Memory`); where that fails the memory is dropped and
    the plain step is taken.
    Certificate: f is concave, so J(q') <= f(q) + <df, q' - q> - sum s KL(q' || mu) for every q'.
    The right side is largest at q' = t, where it exceeds J(q) by sum_gx s_gx KL(q_gx || t_gx): the
    gap. Unlike the plain Frank-Wolfe gap it stays finite where q is nearly 0.

    Ends without the certificate (gap too large, or NaN) after max_iterations, or when no step
    raises J: the caller must look at the gap.
    Args: reference_GXK: mu, rows sum to 1, or all 0 for an absent (g, x). kl_scale_GX: s > 0.
    tol: stop when gap <= tol * |J|, or <= least_gap. initial_GXK: where to start; mu if None.
    """
    space = _Space.of(objective, reference_GXK, kl_scale_GX)
    point = space.at(space.log_mu_GXK if initial_GXK is None else initial_GXK.log())
    memory, eta, iteration = _Memory(reference_GXK), 1.0, 1
    while not point.gap <= max(tol * abs(point.value), least_gap) and iteration < max_iterations:
        after, eta = _improve(space, point, memory, eta)
        if after is None:
            break
        memory.add(point, after)
        point, iteration = after, iteration + 1
        eta = min(1.0, STEP_GROWTH * eta)
    return MirrorResult(point.q_GXK, point.value, point.gap, iteration)


@dataclass(frozen=True)
class _Point:
    """q, J(q), the way to the best response, log t - log q less its mean under q, and the gap."""

    log_q_GXK: Tensor
    q_GXK: Tensor
    value: float
    advance_GXK: Tensor
    gap: float


@dataclass(frozen=True)
class _Space:
    """The objective with its KL term, on the product of simplices."""

    objective: Objective
    live_GXK: Tensor
    log_mu_GXK: Tensor
    floor_GXK: Tensor
    scale_GX1: Tensor

    @classmethod
    def of(cls, objective: Objective, mu_GXK: Tensor, scale_GX: Tensor) -> "_Space":
        live = mu_GXK > 0
        return cls(
            objective=objective,
            live_GXK=live,
            log_mu_GXK=torch.where(live, mu_GXK.log(), NO_LOG),
            floor_GXK=torch.where(live, MIN_LOG, NO_LOG).to(mu_GXK),
            scale_GX1=scale_GX.unsqueeze(-1),
        )

    def at(self, logits_GXK: Tensor) -> _Point:
        """The point softmax(logits), evaluated."""
        log_q = torch.maximum(logits_GXK, self.floor_GXK).log_softmax(-1)
        log_q = torch.maximum(log_q, self.floor_GXK)
        q = log_q.exp() * self.live_GXK
        value, gradient = self.objective(q)
        log_ratio = log_q - self.log_mu_GXK
        kl = ((q * log_ratio).sum(-1, keepdim=True) * self.scale_GX1).sum()
        advance = torch.where(self.live_GXK, gradient / self.scale_GX1 - log_ratio, 0.0)
        advance = advance - (q * advance).sum(-1, keepdim=True)
        # KL(q || t) = log E_q exp(log t - log q), as the advance has mean 0.
        gap = float((self.scale_GX1[..., 0] * (log_q + advance).logsumexp(-1)).sum())
        return _Point(log_q, q, float(value - kl), advance, max(gap, 0.0) if gap == gap else gap)


class _Memory:
    """Anderson's extrapolation of the plain step q -> q^(1-eta) t^eta, in logs.

    Source: Walker and Ni 2011, "Anderson acceleration for fixed-point iterations",
    doi 10.1137/10078356X: the step is corrected by the combination of remembered differences that
    would have made the advance least. We measure it in the metric of the KL term, sum s q a b.
    """

    def __init__(self, like_GXK: Tensor) -> None:
        self.moves_MN = like_GXK.new_zeros(MEMORY, like_GXK.numel())
        self.turns_MN = torch.zeros_like(self.moves_MN)
        self.count = 0

    def add(self, before: _Point, after: _Point) -> None:
        """Remembers how far the point moved and how its advance changed."""
        slot = self.count % MEMORY
        self.moves_MN[slot] = (after.log_q_GXK - before.log_q_GXK).flatten()
        self.turns_MN[slot] = (after.advance_GXK - before.advance_GXK).flatten()
        self.count += 1

    def forget(self) -> None:
        self.count = 0

    def step(self, point: _Point, scale_GX1: Tensor, eta: float) -> Tensor:
        """The extrapolated step; the plain one, eta * advance, where nothing is remembered."""
        plain = eta * point.advance_GXK
        size = min(self.count, MEMORY)
        if size == 0:
            return plain
        moves, turns = self.moves_MN[:size], self.turns_MN[:size]
        weighted = turns * (point.q_GXK * scale_GX1).flatten()
        gram, match = weighted @ turns.T, weighted @ point.advance_GXK.flatten()
        part_M = torch.linalg.pinv(gram, rtol=1e-10, hermitian=True) @ match
        return plain - (part_M @ moves + eta * (part_M @ turns)).view_as(plain)


def _improve(
    space: _Space, point: _Point, memory: _Memory, eta: float
) -> tuple[_Point | None, float]:
    """The next point and the step length that led there; None where no step keeps J."""
    least = point.value - ROUNDING * max(1.0, abs(point.value))
    while eta >= MIN_STEP:
        after = space.at(point.log_q_GXK + memory.step(point, space.scale_GX1, eta))
        if after.value >= least and after.gap <= GAP_GROWTH * point.gap + MIN_GAP:
            return after, eta
        if memory.count:
            memory.forget()
        else:
            eta /= 2
    return None, eta
