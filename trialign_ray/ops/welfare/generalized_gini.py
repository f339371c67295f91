"""Rank-dependent mixing operators: the worse off a player is, the more it counts.

Shapes: G players (groups, or groups x objectives), K ranks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from trialign_ray.errors import ConfigError, ShapeError
from trialign_ray.ops.welfare.protocol import present_weights


class RankCurve(Protocol):
    """L(s): total credit of the worst-off share s of the weight; concave, L(0) = 0, L(1) = 1."""

    def __call__(self, share_K: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class GiniCurve:
    """L(s) = 2 s - s^2; its steps are omega_k = L(k/G) - L((k-1)/G) = (2(G-k)+1) / G^2."""

    def __call__(self, share_K: Tensor) -> Tensor:
        return share_K * (2 - share_K)


@dataclass(frozen=True)
class CVaRCurve:
    """L(s) = min(s / level, 1): the mean of the lowest `level` share of the weight."""

    level: float

    def __post_init__(self) -> None:
        if not 0 < self.level <= 1:
            raise ConfigError(
                f"level of cvar is {self.level}; expected 0 < level <= 1, the share of the weight "
                "that counts as the worst off (for the worst group alone use maximin)"
            )

    def __call__(self, share_K: Tensor) -> Tensor:
        return (share_K / self.level).clamp_max(1)


@dataclass(frozen=True)
class MaximinCurve:
    """L(s) = 1 for s > 0: only the worst-off player of positive weight counts."""

    def __call__(self, share_K: Tensor) -> Tensor:
        return (share_K > 0).to(share_K)


@dataclass(frozen=True)
class GeneralizedGini:
    """W = sum_k omega_k u_(k), u ascending and omega >= 0 not increasing; credit omega by rank.

    Source: Weymark 1981, "Generalized Gini inequality indices", doi 10.1016/0165-4896(81)90018-4.
    Tied players share the omegas of their ranks in proportion to their weights, which for equal
    weights is the mean omega. Concave everywhere, homogeneous of degree 1. Not smooth:
    W(u) = min over C of <c, u>, C = {c >= 0: sum_{g in S} c_g <= L(w(S)) for every set S of
    players, with equality for all}, and `credit` is a minimiser, so a supergradient at ties.

    Unequal weights: with players in ascending order, the one that holds the weight between the
    cumulative shares s and s + w gets L(s + w) - L(s), L the curve below. Equal weights give the
    sum above. For a curve: gini is sum_gh w_g w_h min(u_g, u_h), cvar the mean of the lowest
    `level` share of the weight, maximin the minimum over players of positive weight.

    Absence: a curve gives the omegas of however many players are present. An omega of one's own
    says nothing about fewer players, so another number than its length is a ShapeError.

    omega: one weight per rank, worst off first; () with a curve means any number of players.
    curve: L; None interpolates the cumulative sum of omega.
    Raises: ConfigError if omega is empty, negative, not finite, all zero or increasing.
    """

    omega: Sequence[float] = ()
    curve: RankCurve | None = None

    def __post_init__(self) -> None:
        omega = tuple(float(weight) for weight in self.omega)
        object.__setattr__(self, "omega", omega)
        if self.curve is not None:
            return
        reason = None
        if not omega:
            reason = "is empty; expected one weight per player, worst off first"
        elif not all(math.isfinite(weight) and weight >= 0 for weight in omega):
            reason = "must be finite and >= 0: a negative weight would reward a group's loss"
        elif sum(omega) == 0:
            reason = "is all zero: no group would count"
        elif any(later > earlier for earlier, later in pairwise(omega)):
            reason = (
                "increases: the better off would count more, which is not concave and rewards "
                "inequality; sort it in decreasing order"
            )
        if reason:
            raise ConfigError(f"omega of generalized_gini, {list(omega)}, {reason}")

    @classmethod
    def gini(cls, num_players: int | None = None) -> "GeneralizedGini":
        """omega_k = (2(G-k)+1) / G^2: the mean, times 1 - Gini coefficient."""
        return cls._of_curve(GiniCurve(), num_players)

    @classmethod
    def cvar(cls, num_players: int | None = None, level: float = 0.5) -> "GeneralizedGini":
        """Mean of the worst-off `level` share, 0 < level <= 1."""
        return cls._of_curve(CVaRCurve(level), num_players)

    @classmethod
    def maximin(cls, num_players: int | None = None) -> "GeneralizedGini":
        """The worst-off player, omega = (1, 0, .., 0); tied ones share the credit."""
        return cls._of_curve(MaximinCurve(), num_players)

    @classmethod
    def _of_curve(cls, curve: RankCurve, num_players: int | None) -> "GeneralizedGini":
        if num_players is None:
            return cls((), curve)
        if num_players < 1:
            raise ConfigError(f"num_players is {num_players}; expected >= 1, or None for any")
        share = torch.arange(num_players + 1, dtype=torch.float64) / num_players
        return cls(curve(share).diff().tolist(), curve)

    @property
    def concave_from(self) -> float:
        return -math.inf

    def cumulative_credit(self, share_K: Tensor) -> Tensor:
        """L(s), the credit of the worst-off share s of the weight, 0 <= s <= 1."""
        if self.curve is not None:
            return self.curve(share_K)
        omega = torch.tensor(self.omega, dtype=share_K.dtype, device=share_K.device)
        rank = torch.arange(len(omega), dtype=share_K.dtype, device=share_K.device)
        covered = (share_K.unsqueeze(-1) * len(omega) - rank).clamp(0, 1)
        return (omega * covered).sum(-1)

    def value(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor:
        # The ranks are constant near u, so the gradient of <credit, u> at fixed credit is credit.
        credit = self.credit(u_G, weights_G, present_G)
        held = credit > 0
        return (credit[held] * u_G[held]).sum()

    def credit(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor:
        weights = present_weights(u_G, weights_G, present_G)
        held = weights > 0
        self._check_count(int(held.sum()))
        levels, level_of_player = u_G.detach()[held].unique(return_inverse=True)
        level_weight = torch.zeros_like(levels).scatter_add(0, level_of_player, weights[held])
        share = torch.cat([levels.new_zeros(1), level_weight.cumsum(0)])
        per_weight = self.cumulative_credit(share).diff() / level_weight
        return torch.zeros_like(u_G).masked_scatter(
            held, weights[held] * per_weight[level_of_player]
        )

    def _check_count(self, num_present: int) -> None:
        """Raises: ShapeError if omega is not for this many present players."""
        if not self.omega or num_present == len(self.omega):
            return
        if self.curve is not None and num_present < len(self.omega):
            return
        raise ShapeError(
            f"{num_present} players are present and generalized_gini has {len(self.omega)} "
            "omegas; expected one per present player (groups, or 2 x groups for group "
            "objectives); gini, cvar and maximin follow the number that is present"
        )
