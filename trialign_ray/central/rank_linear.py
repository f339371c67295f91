"""The central problem under a welfare with kinks: generalised Gini, CVaR, maximin.

Such a welfare is W(u) = min over omega in Omega of <omega, u>, Omega the credits that it can give.
We look for the saddle point: the policy and the omega against which it is best.

Shapes: G groups, P players, K candidates, X questions.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trialign_ray.central.problem import Problem
from trialign_ray.central.smooth import Optimum, Prices, Start, solve_smooth
from trialign_ray.ops.mirror import MIN_GAP
from trialign_ray.ops.welfare import GeneralizedGini, PowerMean, Welfare, present_weights

CURVATURE = 4.0
"""First prox weight rho, in units of beta / variance of the returns."""
GROWTH = 4.0
"""Factor on rho after a round that leaves more than a quarter of the slack."""
INNER = 0.2
"""Gap of an inner problem, as a part of the slack that the round before left."""
MAX_RHO = 1e7
"""Largest rho, in units of 1 / returns: beyond it rounding puts omega outside of Omega."""
LEAST_GAP = 1e-8
"""Gap that always suffices, in units of the largest return: W may be 0 for want of one player."""


def rank_linear(welfare: Welfare) -> GeneralizedGini | None:
    """The welfare as a weighted sum of ranked returns, or None where it is none (it is smooth)."""
    if isinstance(welfare, GeneralizedGini):
        return welfare
    if isinstance(welfare, PowerMean) and welfare.p == -math.inf:
        return GeneralizedGini.maximin()
    return None


def isotonic_decreasing(target_P: Tensor, weights_P: Tensor) -> Tensor:
    """argmin over y_1 >= .. >= y_P of sum_p w_p (y_p - target_p)^2, shape (P,).

    Min-max formula y_i = min_{j <= i} max_{k >= i} mean(target_j .. target_k): Barlow, Bartholomew,
    Bremner and Brunk 1972, "Statistical inference under order restrictions", eq. 1.9 ff.
    """
    zero = target_P.new_zeros(1)
    mass = torch.cat([zero, weights_P.cumsum(0)])
    total = torch.cat([zero, (weights_P * target_P).cumsum(0)])
    mean_jk = (total[1:] - total[:-1, None]) / (mass[1:] - mass[:-1, None])
    upper = torch.ones_like(mean_jk, dtype=torch.bool).triu()
    from_right = torch.where(upper, mean_jk, -math.inf).flip(-1).cummax(-1).values.flip(-1)
    return torch.where(upper, from_right, math.inf).min(0).values


@dataclass(frozen=True)
class ProximalWelfare:
    """W_rho(u) = min over omega in Omega of <omega, u> + sum_p (omega_p - c_p)^2 / (2 rho w_p).

    A smooth majorant of W, equal to it where `center` is the minimising omega. With densities
    d = omega / w the minimiser is the projection of z = c / w - rho u on Omega, an isotonic
    regression: d = z - y, y = argmin over y decreasing along z of sum_p w_p (z_p - d0_p - y_p)^2,
    d0 the densities of the corner that W's own credit gives in the order of z.
    Source: Blondel, Teboul, Berthet and Djolonga 2020, arXiv 2002.08871, proposition 3; unequal
    weights count as that many equal players. Absent players are left out before.
    """

    welfare: GeneralizedGini
    center_P: Tensor
    rho: float

    @property
    def concave_from(self) -> float:
        return -math.inf

    def credit(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor:
        weights = present_weights(u_G, weights_G, present_G)
        held = weights > 0
        w, z = weights[held], self.center_P[held] / weights[held] - self.rho * u_G[held]
        corner = self.welfare.credit(-z, w) / w
        order = z.argsort(descending=True)
        excess = isotonic_decreasing((z - corner)[order], w[order])
        density = torch.empty_like(z).index_copy_(0, order, z[order] - excess).clamp_min(0)
        return torch.zeros_like(u_G).masked_scatter(held, w * density)

    def value(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor:
        omega = self.credit(u_G, weights_G, present_G)
        weights = present_weights(u_G, weights_G, present_G)
        held = weights > 0
        moved = (omega - self.center_P)[held].square() / weights[held]
        return (omega[held] * u_G[held]).sum() + moved.sum() / (2 * self.rho)


def solve_rank_linear(
    problem: Problem,
    welfare: GeneralizedGini,
    prices: Prices,
    tol: float,
    max_iterations: int,
    start: Start,
) -> Optimum:
    """The maximiser for a welfare with kinks, and its certificate.

    Proximal point in omega, which is the method of multipliers (Rockafellar 1976, "Augmented
    Lagrangians and applications of the proximal point algorithm in convex programming",
    doi 10.1287/moor.1.2.97): solve with W_rho, make its omega the next centre, raise rho where that
    is slow. Unlike plain smoothing it needs no large rho to be exact.
    Certificate: any omega in Omega gives W(u) <= <omega, u>, so J* is at most J(q) plus the gap of
    the linearised problem (`ops.mirror`) plus the slack <omega, U(q)> - W(U(q)).
    """
    center, initial_GXK = start.credit_P, start.q_GXK
    if center is None:
        center = present_weights(
            torch.ones_like(problem.weights_P), problem.weights_P, problem.present_P
        )
    largest = float(problem.value_JGXK.abs().amax(-1).sum(-1).max())
    rho, max_rho = _first_rho(problem, prices), MAX_RHO / max(largest, MIN_GAP)
    least, wanted, slack, work = max(LEAST_GAP * largest, MIN_GAP), math.inf, math.inf, 0
    while True:
        rho = min(rho, max_rho)
        smooth = ProximalWelfare(welfare, center, rho)
        inner = solve_smooth(
            problem, smooth, prices, 0.0, max_iterations - work, initial_GXK, wanted
        )
        found = _judged(problem, welfare, smooth, inner)
        aim, work = max(tol * abs(found.objective), least), work + inner.num_iterations
        found = replace(found, wanted_gap=aim, num_iterations=work)
        if found.gap <= aim or work >= max_iterations:
            return found
        last, slack = slack, found.gap - inner.gap
        rho = GROWTH * rho if slack > last / GROWTH else rho
        center, initial_GXK, wanted = found.credit_P, found.q_GXK, max(INNER * slack, aim / 4)


def _judged(
    problem: Problem, welfare: GeneralizedGini, smooth: ProximalWelfare, inner: Optimum
) -> Optimum:
    """The inner optimum with J and gap of the welfare itself; its omega is the credit."""
    weights, present = problem.weights_P, problem.present_P
    value = welfare.value(inner.utility_P, weights, present)
    slack = (inner.credit_P * inner.utility_P).sum() - value
    majorant = smooth.value(inner.utility_P, weights, present)
    return replace(
        inner,
        objective=inner.objective - float(majorant - value),
        gap=inner.gap + max(float(slack), 0.0),
    )


def _first_rho(problem: Problem, prices: Prices) -> float:
    """A prox term about as curved as the KL term: rho = c beta / mean variance of returns."""
    mean = (problem.reference_GXK * problem.value_JGXK).sum(-1, keepdim=True)
    spread_JGXK = problem.reference_GXK * (problem.value_JGXK - mean).square()
    scale_GX1 = prices.kl_weight * problem.kl_scale_GX.unsqueeze(-1)
    response_P = (spread_JGXK / scale_GX1).sum((-1, -2)).flatten() * problem.weights_P
    strength = float(response_P[problem.present_P].mean())
    return CURVATURE / strength if strength > 0 else 1.0
