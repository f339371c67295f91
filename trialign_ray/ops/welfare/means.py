"""Smooth mixing operators: Nash welfare in logs, power means, and the soft minimum.

Shapes: G players (groups, or groups x objectives).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trialign_ray.errors import ConfigError
from trialign_ray.ops.welfare.protocol import masked_returns, present_weights

EPSILON = 1e-2
"""Where the logarithm is continued by its tangent, in units of return."""


def extended_log(u: Tensor, epsilon: float = EPSILON) -> Tensor:
    """log u for u >= epsilon, its tangent at epsilon below: concave, C1, defined for every u.

    phi(u) = log(eps) + (u - eps) / eps for u < eps (ALGORITHM, section 4). Its slope is bounded by
    1 / eps, and unlike a clamp it keeps the gradient of exactly the worst-off group.
    """
    tangent = math.log(epsilon) + (u - epsilon) / epsilon
    return torch.where(u >= epsilon, torch.log(u.clamp_min(epsilon)), tangent)


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
        return (weights * extended_log(masked_returns(u_G, present_G), self.epsilon)).sum()

    def credit(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor:
        weights = present_weights(u_G, weights_G, present_G)
        return weights / masked_returns(u_G, present_G).clamp_min(self.epsilon)


@dataclass(frozen=True)
class PowerMean:
    """W = M_p(u) = (sum_g w_g u_g^p)^(1/p): p = 1 utilitarian, 0 Nash, -inf the worst group.

    Computed in logs of u (continued below epsilon as in `extended_log`); near p = 0 by the series
    log M_p = E[log u] + p/2 Var[log u]. For p <= 1 concave where every u >= epsilon; below it the
    continuation is monotone only (p = 1 and p = -inf need no logarithm and are concave
    everywhere). A p > 1 rewards inequality and is concave nowhere.
    """

    p: float = 0.0
    epsilon: float = EPSILON

    @property
    def concave_from(self) -> float:
        if self.p > 1:
            return math.inf
        return -math.inf if self.p in (1, -math.inf) else self.epsilon

    def value(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor:
        weights = present_weights(u_G, weights_G, present_G)
        u = masked_returns(u_G, present_G)
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


@dataclass(frozen=True)
class SoftMin:
    """W = -temperature * log sum_g w_g exp(-u_g / temperature), credit = softmax.

    The entropic risk measure (Föllmer and Schied 2002, doi 10.1007/s007800200072): the worst group
    as temperature -> 0, the weighted mean as it grows. Shifting every return by c shifts W by c;
    it is concave for every u, zero and negative ones too, but not free of scale.
    temperature: > 0, in units of return; the default suits returns in [0, 1].
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ConfigError(
                f"temperature of soft_min is {self.temperature}; expected a finite number > 0, "
                "in units of return (for the worst group alone use maximin)"
            )

    @property
    def concave_from(self) -> float:
        return -math.inf

    def _exponents(
        self, u_G: Tensor, weights_G: Tensor | None, present_G: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(log w - u / temperature of the players of positive weight, which players these are)."""
        weights = present_weights(u_G, weights_G, present_G)
        held = weights > 0
        return weights[held].log() - u_G[held] / self.temperature, held

    def value(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor:
        exponents, _ = self._exponents(u_G, weights_G, present_G)
        return -self.temperature * torch.logsumexp(exponents, 0)

    def credit(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor:
        exponents, held = self._exponents(u_G, weights_G, present_G)
        return torch.zeros_like(u_G).masked_scatter(held, torch.softmax(exponents, 0))
