"""Inconsistency penalties: how far groups' answer distributions to one question lie apart.

All are convex in the distributions and 0 where these are equal. Zero does not mean true: groups
that agree on a falsehood are perfectly consistent, so truth is always reported beside it.

Shapes: ... questions, G groups, Y canonical answers.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from trialign_ray.errors import ConfigError, ShapeError
from trialign_ray.ops.welfare import present_weights

Penalty = Callable[[Tensor, Tensor], Tensor]


def _weights(p_GY: Tensor, weights_G: Tensor | None) -> Tensor:
    """Weights of shape (..., G) that sum to 1; rows may differ in which groups are present."""
    if p_GY.ndim < 2:
        raise ShapeError(f"answer distributions of shape {tuple(p_GY.shape)}: expected (..., G, Y)")
    if weights_G is None or weights_G.ndim == 1:
        return present_weights(p_GY.new_ones(p_GY.shape[-2]), weights_G).expand(p_GY.shape[:-1])
    return weights_G / weights_G.sum(-1, keepdim=True).clamp_min(torch.finfo(p_GY.dtype).tiny)


def entropy(p_Y: Tensor) -> Tensor:
    """Shannon entropy -sum p log p in nats over the last axis, with 0 log 0 = 0."""
    return torch.special.entr(p_Y).sum(-1)


def generalized_jsd(
    p_GY: Tensor, weights_G: Tensor | None = None, normalized: bool = False
) -> Tensor:
    """Generalised Jensen-Shannon divergence H(sum_g w_g p_g) - sum_g w_g H(p_g), in nats.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy", eq. 5.1. The square of the
    distance that scipy.spatial.distance.jensenshannon gives for two groups.
    Args: p_GY: distributions, shape (..., G, Y). weights_G: shape (G,) or (..., G), >= 0; equal if
    None; a group of weight 0 is absent. normalized: divide by the largest possible value, the
    entropy of the weights (log G for equal ones), so that the range is [0, 1].
    Returns: shape (...).
    """
    weights = _weights(p_GY, weights_G)
    mixture = (weights.unsqueeze(-1) * p_GY).sum(-2)
    divergence = entropy(mixture) - (weights * entropy(p_GY)).sum(-1)
    if not normalized:
        return divergence
    return divergence / entropy(weights).clamp_min(torch.finfo(p_GY.dtype).tiny)


def excess_disagreement(p_GY: Tensor, weights_G: Tensor | None = None) -> Tensor:
    """Mean over pairs of groups of ||p_g - p_h||^2 / 2, shape (...).

    The part of the pair disagreement 1 - <p_g, p_h> that is not each group's own uncertainty: plain
    disagreement would tax entropy. Pairs weigh w_g w_h; one group alone gives 0.
    """
    weights = _weights(p_GY, weights_G)
    pair = weights.unsqueeze(-1) * weights.unsqueeze(-2)
    pair = pair * (1 - torch.eye(p_GY.shape[-2], dtype=p_GY.dtype, device=p_GY.device))
    difference = p_GY.unsqueeze(-2) - p_GY.unsqueeze(-3)
    total = (pair * difference.square().sum(-1)).sum((-1, -2)) / 2
    return total / pair.sum((-1, -2)).clamp_min(torch.finfo(p_GY.dtype).tiny)


PENALTIES: dict[str, Penalty] = {
    "generalized_jsd": generalized_jsd,
    "normalized_jsd": partial(generalized_jsd, normalized=True),
    "excess_disagreement": excess_disagreement,
}


def penalty_by_name(name: str) -> Penalty:
    """The penalty of that name. Raises: ConfigError, listing the names there are."""
    if name not in PENALTIES:
        raise ConfigError(
            f"targets.penalty is {name!r}; expected one of {', '.join(sorted(PENALTIES))}"
        )
    return PENALTIES[name]
