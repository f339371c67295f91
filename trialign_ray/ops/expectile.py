"""Implicit Q-learning and advantage weights: values of the log's best actions, no action unseen.

Shapes: ... any leading axes, N outcomes of one distribution; G groups, X questions, K candidates.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trialign_ray.errors import ConfigError, ShapeError


def _check_tau(tau: float) -> None:
    if not 0 < tau < 1:
        raise ConfigError(f"expectile tau is {tau}; expected 0 < tau < 1 (0.5 is the mean)")


def expectile_loss(difference: Tensor, tau: float) -> Tensor:
    """mean |tau - 1(d < 0)| d^2 of d = target - prediction, a scalar.

    Source: Kostrikov et al. 2021, arXiv 2110.06169, eq. 5; there d = Q(s, a) - V(s).
    Args: difference: d, any shape. tau: in (0, 1); above 0.5 the prediction leans to the best.
    Raises: ConfigError.
    """
    _check_tau(tau)
    below = (difference < 0).to(difference)
    return ((tau - below).abs() * difference.square()).mean()


def expectile(values_N: Tensor, weights_N: Tensor, tau: float) -> Tensor:
    """The minimiser m of sum_n w_n |tau - 1(x_n < m)| (x_n - m)^2, exactly, shape (...).

    m is the mean with weight tau on outcomes above it and 1 - tau on the others. Among all ways
    to split the sorted outcomes in two, m is the one whose such mean is largest (tau >= 1/2) or
    smallest (tau < 1/2): Bellini et al. 2014, "Generalized quantiles as risk measures".
    Args: values_N: shape (..., N). weights_N: same shape, >= 0, any scale. tau: in (0, 1).
    Raises: ShapeError, ConfigError.
    """
    _check_tau(tau)
    if values_N.shape != weights_N.shape or values_N.ndim < 1:
        raise ShapeError(
            f"values of shape {tuple(values_N.shape)} and weights of shape "
            f"{tuple(weights_N.shape)}: expected one weight per value, (..., N)"
        )
    if bool((weights_N < 0).any()) or not bool((weights_N.sum(-1) > 0).all()):
        raise ConfigError("weights of an expectile must be >= 0 and positive for some outcome")
    x, order = values_N.sort(-1)
    w = weights_N.to(x).gather(-1, order)
    mass, moment = w.cumsum(-1), (w * x).cumsum(-1)
    total_mass, total_moment = mass[..., -1:], moment[..., -1:]
    means = (tau * (total_moment - moment) + (1 - tau) * moment) / (
        tau * (total_mass - mass) + (1 - tau) * mass
    )
    return means.amax(-1) if tau >= 0.5 else means.amin(-1)


def td_target(reward: Tensor, terminated: Tensor, next_value: Tensor, discount: float) -> Tensor:
    """y = r + gamma (1 - terminated) V(s'), without gradient.

    Source: Kostrikov et al. 2021, arXiv 2110.06169, eq. 6. A dialogue that was cut off (truncated)
    goes on, so it is bootstrapped: only `terminated` ends the sum. Where it does, next_value is
    not read and may be anything.
    Args: reward, terminated (bool), next_value: one shape. discount: gamma in [0, 1].
    Raises: ShapeError, ConfigError.
    """
    if not reward.shape == terminated.shape == next_value.shape:
        raise ShapeError(
            f"reward {tuple(reward.shape)}, terminated {tuple(terminated.shape)} and next_value "
            f"{tuple(next_value.shape)}: expected one shape"
        )
    if not 0 <= discount <= 1:
        raise ConfigError(f"discount is {discount}; expected 0 <= discount <= 1")
    future = torch.where(terminated.bool(), torch.zeros_like(next_value), next_value)
    return (reward + discount * future).detach()


def clipped_double_q(q1: Tensor, q2: Tensor) -> Tensor:
    """min(Q1, Q2): of two critics the one that promises less.

    Source: Fujimoto et al. 2018, arXiv 1802.09477, clipped double Q-learning.
    """
    return torch.minimum(q1, q2)


def polyak_update(
    target: Mapping[str, Tensor], online: Mapping[str, Tensor], rate: float = 0.005
) -> dict[str, Tensor]:
    """New target parameters (1 - rate) * target + rate * online, without gradient.

    Source: Lillicrap et al. 2015, arXiv 1509.02971, algorithm 1. Nothing is written in place.
    Args: two state dictionaries with the same names. rate: in [0, 1]. Raises: ShapeError,
    ConfigError.
    """
    if not 0 <= rate <= 1:
        raise ConfigError(f"polyak rate is {rate}; expected 0 <= rate <= 1")
    if target.keys() != online.keys():
        raise ShapeError(
            f"target and online parameters differ in {sorted(target.keys() ^ online.keys())}; "
            "expected the same names"
        )
    return {
        name: torch.lerp(value.detach(), online[name].detach(), rate)
        for name, value in target.items()
    }


def exp_weights(adv_GXK: Tensor, temperature: float, max_weight: float) -> Tensor:
    """Weights w = min(exp(A / temperature), max_weight) for advantage-weighted cloning.

    Source: Peng et al. 2019, arXiv 1910.00177, eq. 6. We clip the weight; the paper does so too.
    Args: adv_GXK: advantages, reward units, any leading axes. temperature: > 0, reward units.
    max_weight: > 0.
    Returns: weights without gradient, of the shape of adv_GXK, in [0, max_weight].
    Raises: ConfigError.
    """
    if not temperature > 0 or not max_weight > 0:
        raise ConfigError(
            f"temperature is {temperature} and max_weight is {max_weight}; expected both > 0"
        )
    return (adv_GXK.detach() / temperature).exp().clamp_max(max_weight)
