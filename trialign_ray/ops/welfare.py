"""Fairness-aware mixing operators: how returns of several groups become one number.

Every operator has `value(u_G)` = W(u) and `credit(u_G)` = dW/du, the weight that the centre gives
to each group's return. Weights are renormalised over the groups that are present; an absent group
is masked, never counted as 0.

Shapes: G players (groups, or groups x objectives).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trialign_ray.errors import ConfigError, ShapeError

EPSILON = 1e-2
"""Where the logarithm is continued by its tangent, in units of return."""


class Welfare(Protocol):
    """A monotone function of the players' returns, concave where all are >= `concave_from`."""

    @property
    def concave_from(self) -> float: ...

    def value(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor: ...

    def credit(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor: ...


def extended_log(u: Tensor, epsilon: float = EPSILON) -> Tensor:
    """log u for u >= epsilon, its tangent at epsilon below: concave, C1, defined for every u.

    phi(u) = log(eps) + (u - eps) / eps for u < eps (ALGORITHM, section 4). Its slope is bounded by
    1 / eps, and unlike a clamp it keeps the gradient of exactly the worst-off group.
    """
    tangent = math.log(epsilon) + (u - epsilon) / epsilon
    return torch.where(u >= epsilon, torch.log(u.clamp_min(epsilon)), tangent)


def present_weights(
    u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
) -> Tensor:
    """Weights that sum to 1 over present players and are 0 elsewhere, shape (G,).

    Args: weights_G: >= 0, any scale; equal if None. present_G: bool; all present if None.
    Raises: ShapeError, ConfigError if a weight is negative or nobody is present.
    """
    weights = torch.ones_like(u_G) if weights_G is None else weights_G.to(u_G)
    if u_G.ndim != 1 or weights.shape != u_G.shape:
        raise ShapeError(
            f"returns of shape {tuple(u_G.shape)} and weights of shape {tuple(weights.shape)}: "
            "expected two vectors of one length, the number of groups"
        )
    if present_G is not None:
        weights = torch.where(present_G, weights, torch.zeros_like(weights))
    total = weights.sum()
    if bool((weights < 0).any()) or not bool(total > 0):
        raise ConfigError(
            f"group weights {weights.tolist()} must be >= 0 and positive for a present group"
        )
    return weights / total


def _masked(u_G: Tensor, present_G: Tensor | None) -> Tensor:
    """Returns with a harmless 1 in place of absent players, whose weight is 0 anyway."""
    return u_G if present_G is None else torch.where(present_G, u_G, torch.ones_like(u_G))


@dataclass(frozen=True)
class LogNash:
    """Nash social welfare in logs: W = sum_g w_g phi(u_g), credit w_g phi'(u_g). The default.

    Free of scale: multiplying one group's returns by a constant changes no comparison.
    """

    epsilon: float = EPSILON

    @property
    def concave_from(self) -> float:
        return -math.inf

    def value(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor:
        weights = present_weights(u_G, weights_G, present_G)
        return (weights * extended_log(_masked(u_G, present_G), self.epsilon)).sum()

    def credit(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor:
        weights = present_weights(u_G, weights_G, present_G)
        return weights / _masked(u_G, present_G).clamp_min(self.epsilon)


@dataclass(frozen=True)
class PowerMean:
    """W = M_p(u) = (sum_g w_g u_g^p)^(1/p): p = 1 utilitarian, 0 Nash, -inf the worst group.

    Computed in logs of u (continued below epsilon as in `extended_log`); near p = 0 by the series
    log M_p = E[log u] + p/2 Var[log u]. For p <= 1 concave where every u >= epsilon; below it the
    continuation is monotone only. A p > 1 rewards inequality.
    """

    p: float = 0.0
    epsilon: float = EPSILON

    @property
    def concave_from(self) -> float:
        return -math.inf if self.p == 1 else self.epsilon

    def value(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor:
        weights = present_weights(u_G, weights_G, present_G)
        u = _masked(u_G, present_G)
        held = weights > 0
        if self.p == 1:
            return (weights * u).sum()
        if math.isinf(self.p):
            return u[held].min() if self.p < 0 else u[held].max()
        log_u, w = extended_log(u[held], self.epsilon), weights[held]
        if abs(self.p) < 1e-5:
            mean = (w * log_u).sum()
            return torch.exp(mean + self.p / 2 * (w * (log_u - mean) ** 2).sum())
        return torch.exp(torch.logsumexp(w.log() + self.p * log_u, 0) / self.p)

    def credit(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor:
        u = u_G.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            return torch.autograd.grad(self.value(u, weights_G, present_G), u)[0]


WELFARES = {"log_nash": LogNash, "power_mean": PowerMean}


def welfare_by_name(name: str, **options: float) -> Welfare:
    """The operator of that name. Raises: ConfigError, listing the names there are."""
    if name not in WELFARES:
        raise ConfigError(
            f"targets.welfare is {name!r}; expected one of {', '.join(sorted(WELFARES))}"
        )
    return WELFARES[name](**options)
