"""Inconsistency penalties with their slopes: in closed form where there is one, else by autograd.

Shapes: X questions, G groups, Y canonical answers.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trialign_ray.ops.inconsistency import (
    PENALTIES,
    Penalty,
    entropy,
    excess_disagreement,
    generalized_jsd,
)

TINY = torch.finfo(torch.float64).tiny


def penalty_with_slope(
    penalty: Penalty, p_XGY: Tensor, weights_XG: Tensor
) -> tuple[Tensor, Tensor]:
    """D of every question, shape (X,), and dD/dp, shape (X, G, Y), both without gradient.

    Where no group gives an answer (p = 0 for all) the slope there is of no meaning.
    Args: weights_XG: >= 0; a group of weight 0 is absent from that question.
    """
    if penalty in CLOSED_FORMS:
        total = weights_XG.sum(-1, keepdim=True).clamp_min(TINY)
        return CLOSED_FORMS[penalty](p_XGY, weights_XG / total)
    p = p_XGY.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        d_X = penalty(p, weights_XG)
        (slope,) = torch.autograd.grad(d_X.sum(), p)
    return d_X.detach(), slope


def _jsd(p_XGY: Tensor, weights_XG: Tensor) -> tuple[Tensor, Tensor]:
    """D = sum_gy w_g p_gy log(p_gy / m_y), m = sum_g w_g p_g; dD/dp_gy = w_g log(p_gy / m_y)."""
    weights = weights_XG.unsqueeze(-1)
    log_mixture = (weights * p_XGY).sum(-2, keepdim=True).clamp_min(TINY).log()
    slope = weights * (p_XGY.clamp_min(TINY).log() - log_mixture)
    return (p_XGY * slope).sum((-1, -2)), slope


def _normalized_jsd(p_XGY: Tensor, weights_XG: Tensor) -> tuple[Tensor, Tensor]:
    d_X, slope = _jsd(p_XGY, weights_XG)
    largest_X = entropy(weights_XG).clamp_min(TINY)
    return d_X / largest_X, slope / largest_X[:, None, None]


def _excess(p_XGY: Tensor, weights_XG: Tensor) -> tuple[Tensor, Tensor]:
    """D = sum_g w_g |p_g - m|^2 / sum_g w_g (1 - w_g), dD/dp_g = 2 w_g (p_g - m) / the same.

    The sum over pairs sum_gh w_g w_h |p_g - p_h|^2 / 2 is sum_g w_g |p_g - m|^2 (Huygens).
    """
    weights = weights_XG.unsqueeze(-1)
    difference = p_XGY - (weights * p_XGY).sum(-2, keepdim=True)
    pairs_X = (weights_XG * (1 - weights_XG)).sum(-1).clamp_min(TINY)
    pull = weights * difference / pairs_X[:, None, None]
    return (pull * difference).sum((-1, -2)), 2 * pull


CLOSED_FORMS: dict[Penalty, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    generalized_jsd: _jsd,
    PENALTIES["normalized_jsd"]: _normalized_jsd,
    excess_disagreement: _excess,
}
