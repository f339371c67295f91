"""What an algorithm is: from the critic's tensors to what every group's adapter shall learn.

Shapes: G groups, X questions, K candidates (padded).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trialign_ray.config_sections import TargetsConfig
from trialign_ray.critic import CandidateTensors, weighted_values
from trialign_ray.group_mixer import Sharing
from trialign_ray.targets import CentralSolution


@dataclass(frozen=True)
class AlgorithmInput:
    """The log as tensors, the settings, the groups' weights and a seed."""

    tensors: CandidateTensors
    config: TargetsConfig
    weights_G: Tensor
    seed: int


@dataclass(frozen=True)
class Targets:
    """Target distributions q (rows sum to 1, or are 0 where there is nothing to learn), returns
    that rank candidates and MODPO's second objective (NaN where not known), and the solution of the
    central problem with its lambda, where one was solved. Tensors have shape (G, X, K)."""

    policy_GXK: Tensor
    value_GXK: Tensor
    margin_GXK: Tensor
    solution: CentralSolution | None = None
    penalty_weight: float | None = None


@dataclass(frozen=True)
class Algorithm:
    """A method by its parts.

    extraction: the loss (see `extraction`); None: as configured. sharing: whether groups share an
    adapter, and how their losses are mixed (see `group_mixer`). central: whether it sees what all
    groups said: the truth head's estimates and borrowed answers. Otherwise it knows the truth of
    verified answers alone, and each group its own.
    """

    summary: str
    solve: Callable[[AlgorithmInput], Targets]
    extraction: str | None = "clone"
    sharing: Sharing = "own"
    central: bool = False


def make_targets(policy_GXK: Tensor, value_GXK: Tensor | None = None) -> Targets:
    """Targets without a second objective; without returns, nothing is known of them."""
    value = torch.full_like(policy_GXK, torch.nan) if value_GXK is None else value_GXK
    return Targets(policy_GXK, value, torch.zeros_like(policy_GXK))


def by_reward(problem: AlgorithmInput) -> Targets:
    """The scalarised known reward ranks candidates; q is the log's mu.

    r = (w_T T + w_P P) / (w_T + w_P), T the visible truth alone where the algorithm is not central.
    NaN where nothing that has a weight was scored.
    """
    tensors, config = problem.tensors, problem.config
    value = weighted_values(tensors, config.truth_weight, config.personalization_weight)
    told = (config.truth_weight > 0) & ~tensors.truth_GXK.isnan()
    told |= (config.personalization_weight > 0) & ~tensors.personalization_GXK.isnan()
    for score_GXK in (tensors.truth_GXK, tensors.personalization_GXK):
        scored_GXK = ~score_GXK.isnan() & tensors.mask_GXK
        told &= scored_GXK | ~scored_GXK.any(-1, keepdim=True)
    known = tensors.mask_GXK & told
    return make_targets(tensors.reference_GXK, torch.where(known, value, torch.nan))
