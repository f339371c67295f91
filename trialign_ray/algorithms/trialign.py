"""TriAlign: fairness, consistency and fidelity to the log in one central problem."""

from torch import Tensor

from trialign_ray.config import TargetsConfig
from trialign_ray.critic import (
    CandidateTensors,
    known_objectives,
    objective_values,
    weighted_values,
)
from trialign_ray.ops.inconsistency import penalty_by_name
from trialign_ray.ops.welfare import welfare_by_name
from trialign_ray.targets import CentralSolution, solve_central


def solve(tensors: CandidateTensors, config: TargetsConfig, weights_G: Tensor) -> CentralSolution:
    """Target distributions of the central problem over `config.players`."""
    known = None
    if config.players == "group_objectives":
        value, known = objective_values(tensors), known_objectives(tensors)
    else:
        value = weighted_values(tensors, config.truth_weight, config.personalization_weight)
    options = {"p": config.welfare_exponent} if config.welfare == "power_mean" else {}
    return solve_central(
        value,
        tensors.reference_GXK,
        tensors.answer_GXK,
        tensors.is_truth_X,
        welfare=welfare_by_name(config.welfare, **options),
        penalty=penalty_by_name(config.penalty),
        penalty_weight=config.penalty_weight,
        kl_weight=config.kl_weight,
        weights_G=weights_G,
        candidate_mask_GXK=tensors.mask_GXK,
        player_present_JG=known,
        tol=config.tolerance,
    )
