"""How losses of several groups become one when they share an adapter.

Shapes: B rows of a batch, G groups.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from trialign_ray.extraction import CandidateBatch

Sharing = Literal["own", "pooled", "group_robust", "worst_group"]
ROBUST_STEP = 0.1
"""Step size of the exponentiated gradient on group weights."""
RETURN_MEMORY = 0.9
"""Share of the old estimate that a group's running return keeps at each update."""


class GroupMixer:
    """Weights of groups in the loss of a shared adapter, updated once per optimizer step.

    pooled: equal weights. group_robust: w_g <- w_g exp(eta L_g), renormalised (Sagawa et al. 2020,
    arXiv 1911.08731, algorithm 1, which GR-DPO, arXiv 2405.20304, takes over). worst_group: all
    weight on the group whose running return under the policy is least (MaxMin). With `weights`, of
    every group and of positive sum, these stay, in place of equal ones.
    """

    def __init__(
        self,
        sharing: Sharing,
        groups: tuple[str, ...],
        weights: Mapping[str, float] | None = None,
    ):
        self._sharing, self._groups = sharing, groups
        given = [1.0 if weights is None else weights[g] for g in groups]
        self._weight_G = torch.tensor(given, dtype=torch.float64) / sum(given)
        self._return_G: Tensor | None = None

    def mix(self, loss_B: Tensor, batch: CandidateBatch, group_of_row: Sequence[str]) -> Tensor:
        """The weighted mean of the groups' mean losses, a scalar."""
        if len(self._groups) == 1:
            return loss_B.mean()
        member_GB = torch.tensor([[name == g for name in group_of_row] for g in self._groups])
        share_GB = member_GB / member_GB.sum(-1, keepdim=True).clamp_min(1)
        loss_G = (share_GB * loss_B).sum(-1)
        self._update(loss_G.detach().double(), share_GB, batch)
        return (self._weight_G.to(loss_G) * loss_G).sum()

    def _update(self, loss_G: Tensor, share_GB: Tensor, batch: CandidateBatch) -> None:
        if self._sharing == "group_robust":
            self._weight_G = (self._weight_G.log() + ROBUST_STEP * loss_G).softmax(-1)
        elif self._sharing == "worst_group":
            with torch.no_grad():
                logit = torch.where(batch.known_BK, batch.logprob_BK, -1e9)
                return_B = (logit.softmax(-1) * batch.known_value_BK).sum(-1)
                fresh = (share_GB * return_B).sum(-1).double()
            old = self._return_G
            kept = fresh if old is None else RETURN_MEMORY * old + (1 - RETURN_MEMORY) * fresh
            self._return_G = kept
            self._weight_G = torch.zeros_like(kept)
            self._weight_G[int(kept.argmin())] = 1.0

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        running = None if self._return_G is None else self._return_G.tolist()
        return {"weight": self._weight_G.tolist(), "return": running}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues with the weights of a checkpoint."""
        self._weight_G = torch.tensor(state["weight"], dtype=torch.float64)
        running = state["return"]
        self._return_G = None if running is None else torch.tensor(running, dtype=torch.float64)
