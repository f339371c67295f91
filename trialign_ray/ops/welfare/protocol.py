"""What every mixing operator promises, and how weights and absence are handled in all of them.

Shapes: G players (groups, or groups x objectives).
"""

from typing import Protocol

import torch
from torch import Tensor

from trialign_ray.errors import ConfigError, ShapeError


class Welfare(Protocol):
    """A monotone function of the players' returns, concave where all are >= `concave_from`.

    `credit` is dW/du; where W has a kink (a tie of a rank-dependent operator) it is a
    supergradient that treats tied players of equal weight alike.
    """

    @property
    def concave_from(self) -> float: ...

    def value(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor: ...

    def credit(
        self, u_G: Tensor, weights_G: Tensor | None = None, present_G: Tensor | None = None
    ) -> Tensor: ...


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


def masked_returns(u_G: Tensor, present_G: Tensor | None) -> Tensor:
    """Returns with a harmless 1 in place of absent players, whose weight is 0 anyway."""
    return u_G if present_G is None else torch.where(present_G, u_G, torch.ones_like(u_G))
