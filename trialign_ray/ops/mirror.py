"""Mirror ascent on products of simplices with a KL term to a reference, and its certificate.

Shapes: G groups, X questions, K candidates. A row (g, x) without candidates is all zero.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps q_GXK to (f(q), df/dq_GXK), f concave."""

MIN_STEP = 1e-12
MIN_LOG = -700.0
"""Least log-probability of a candidate: below it exp underflows and entropies lose their slope."""
MIN_GAP = 1e-12
"""Absolute gap that always suffices, for an objective of nearly 0."""


@dataclass(frozen=True)
class MirrorResult:
    """`objective` is J(q) = f(q) - sum_gx s_gx KL(q_gx || mu_gx); `gap` bounds J* - J(q)."""

    q_GXK: Tensor
    objective: float
    gap: float
    num_iterations: int


def _kl(q_GXK: Tensor, log_q_GXK: Tensor, log_mu_GXK: Tensor, scale_GX: Tensor) -> Tensor:
    terms = torch.where(q_GXK > 0, q_GXK * (log_q_GXK - log_mu_GXK), 0.0)
    return (scale_GX * terms.sum(-1)).sum()


def mirror_ascent(
    objective: Objective,
    reference_GXK: Tensor,
    kl_scale_GX: Tensor,
    tol: float,
    max_iterations: int,
) -> MirrorResult:
    """The maximiser of f(q) - sum_gx s_gx KL(q_gx || mu_gx), with an upper bound on its error.

    Step (mirror descent with the KL term in closed form; Beck and Teboulle 2003,
    doi 10.1016/S0167-6377(02)00231-6): q <- normalise(q^(1-eta) (mu exp(df/dq / s))^eta), eta
    halved until J does not fall and doubled after a success.
    Certificate: f is concave, so J(q') <= f(q) + <df, q' - q> - sum s KL(q' || mu) for every q'.
    The right side is largest at a softmax, where it is
    <df, -q> + sum_gx s_gx log sum_k mu exp(df / s). The gap is that bound minus J(q): unlike
    the plain Frank-Wolfe gap it stays finite where q is nearly 0, and is 0 at the fixed point.

    Ends without the certificate (gap > tol * |J|, or NaN) after max_iterations, or when no step
    raises J: the caller must look at the gap.
    Args: reference_GXK: mu, rows sum to 1, or all 0 for an absent (g, x). kl_scale_GX: s > 0.
    tol: stop when gap <= tol * |J|, or below MIN_GAP where J is nearly 0.
    """
    present_GX = reference_GXK.sum(-1) > 0
    log_mu = torch.where(reference_GXK > 0, reference_GXK.log(), -math.inf)
    safe_log_mu = torch.where(reference_GXK > 0, log_mu, 0.0)
    scale = kl_scale_GX.unsqueeze(-1)

    def evaluate(log_q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q = log_q.exp()
        value, gradient = objective(q)
        kl = _kl(q, torch.where(q > 0, log_q, 0.0), safe_log_mu, kl_scale_GX)
        return q, value - kl, gradient, kl

    log_q = log_mu
    q, value, gradient, kl = evaluate(log_q)
    eta, gap, iteration = 1.0, math.inf, 0
    for _ in range(max_iterations):
        iteration += 1
        tilted = log_mu + gradient / scale
        log_partition = torch.where(present_GX, torch.logsumexp(tilted, -1), 0.0)
        bound = (kl_scale_GX * log_partition).sum() - (gradient * q).sum() + kl
        gap = max(float(bound), 0.0)
        if gap <= max(tol * abs(float(value)), MIN_GAP):
            break
        target = torch.where(reference_GXK > 0, tilted - log_partition.unsqueeze(-1), -math.inf)
        while True:
            mixed = torch.where(reference_GXK > 0, (1 - eta) * log_q + eta * target, -math.inf)
            norm = torch.where(present_GX, torch.logsumexp(mixed, -1), 0.0)
            candidate = (mixed - norm.unsqueeze(-1)).clamp_min(MIN_LOG)
            candidate = torch.where(reference_GXK > 0, candidate, -math.inf)
            proposal = evaluate(candidate)
            if proposal[1] >= value or eta < MIN_STEP:
                break
            eta /= 2
        if eta < MIN_STEP:
            break
        log_q, (q, value, gradient, kl) = candidate, proposal
        eta = min(1.0, 2 * eta)
    return MirrorResult(q, float(value), gap, iteration)
