"""Inconsistency penalties: how far groups' answers to one question lie apart.

All are convex and 0 where groups are equal. Zero does not mean true: groups that agree on a
falsehood are perfectly consistent, so truth is always reported beside it. Those of PENALTIES take
answer distributions p_GY and can be a penalty of the central problem; `levelling_up` and
`truth_variance` take the groups' truth values t_G and know nothing of the answers.

Shapes: ... questions, G groups, Y canonical answers.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from trialign_ray.errors import ConfigError, ShapeError
from trialign_ray.ops.welfare import present_weights

Penalty = Callable[[Tensor, Tensor], Tensor]


def _row_weights(like_G: Tensor, weights_G: Tensor | None) -> Tensor:
    """Weights of shape (..., G) that sum to 1; rows may differ in which groups are present."""
    if weights_G is None or weights_G.ndim == 1:
        return present_weights(like_G.new_ones(like_G.shape[-1]), weights_G).expand(like_G.shape)
    return weights_G / weights_G.sum(-1, keepdim=True).clamp_min(torch.finfo(like_G.dtype).tiny)


def _weights(p_GY: Tensor, weights_G: Tensor | None) -> Tensor:
    if p_GY.ndim < 2:
        raise ShapeError(f"answer distributions of shape {tuple(p_GY.shape)}: expected (..., G, Y)")
    return _row_weights(p_GY[..., 0], weights_G)


def entropy(p_Y: Tensor) -> Tensor:
    """Shannon entropy -sum p log p in nats over the last axis, with 0 log 0 = 0.

    Below the smallest normal number it goes on as a line, so its slope is large at 0 but finite.
    """
    return -(p_Y * p_Y.clamp_min(torch.finfo(p_Y.dtype).tiny).log()).sum(-1)


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


def _deviation(t_G: Tensor, weights_G: Tensor | None) -> tuple[Tensor, Tensor]:
    """(mean t - t_g, weights), both (..., G); 0 for absent groups, whatever their t."""
    if t_G.ndim < 1:
        raise ShapeError("truth values of shape (): expected (..., G), one per group")
    weights = _row_weights(t_G, weights_G)
    truth = torch.where(weights > 0, t_G, 0.0)
    mean = (weights * truth).sum(-1, keepdim=True)
    return torch.where(weights > 0, mean - truth, 0.0), weights


def levelling_up(t_G: Tensor, weights_G: Tensor | None = None) -> Tensor:
    """How far groups fall short of the mean truth: mean_g (mean t - t_g)_+^2, shape (...).

    Only groups below the mean cost anything, and convex in t. Warning: it falls also when the best
    group gets worse, because that lowers the mean: never minimise it without a truth term beside
    it. It acts on truth values, not on answer distributions, so it is not one of PENALTIES.
    Args: t_G: truth values, e.g. probability of the true answer, shape (..., G). weights_G: shape
    (G,) or (..., G), >= 0; equal if None; both means are weighted; weight 0 is an absent group.
    """
    deviation, weights = _deviation(t_G, weights_G)
    return (weights * deviation.clamp_min(0).square()).sum(-1)


def truth_variance(t_G: Tensor, weights_G: Tensor | None = None) -> Tensor:
    """Variance of truth between groups, mean_g (t_g - mean t)^2, shape (...).

    Convex in t. Warning: it falls also when the best group gets worse (groups that are all wrong
    have variance 0): never minimise it without a truth term beside it. It acts on truth values,
    not on answer distributions, so it is not one of PENALTIES. Args: as `levelling_up`.
    """
    deviation, weights = _deviation(t_G, weights_G)
    return (weights * deviation.square()).sum(-1)


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
