"""TriAlign: fairness, consistency and fidelity to the log in one central problem."""

import math

import torch
from torch import Tensor

from trialign_ray.algorithms.algorithm import Algorithm, AlgorithmInput, Targets
from trialign_ray.config_sections import TargetsConfig
from trialign_ray.critic import known_objectives, objective_values, weighted_values
from trialign_ray.ops.inconsistency import penalty_by_name
from trialign_ray.ops.welfare import Welfare, welfare_by_name
from trialign_ray.targets import CentralOptions, solve_central, solve_to_inconsistency

OPTION_KEYS = {
    "power_mean": {"p": "welfare_exponent"},
    "cvar": {"level": "welfare_level"},
    "soft_min": {"temperature": "welfare_temperature"},
    "generalized_gini": {"omega": "welfare_omega"},
}
"""Which keys of `targets` an operator reads."""


def chosen_welfare(config: TargetsConfig) -> Welfare:
    """The configured operator with its own options."""
    keys = OPTION_KEYS.get(config.welfare, {})
    return welfare_by_name(config.welfare, **{o: getattr(config, k) for o, k in keys.items()})


def solve(problem: AlgorithmInput) -> Targets:
    """Target distributions of the central problem over `targets.players`."""
    tensors, config = problem.tensors, problem.config
    if config.players == "group_objectives":
        return central_targets(problem, objective_values(tensors), known_objectives(tensors))
    value = weighted_values(tensors, config.truth_weight, config.personalization_weight)
    return central_targets(problem, value, None)


def central_targets(
    problem: AlgorithmInput, value: Tensor, player_present_JG: Tensor | None
) -> Targets:
    """q of the central problem; candidates rank by log(q / mu), the reward it gives them.

    Args: value: returns of candidates, shape (G, X, K) or (J, G, X, K).
    """
    tensors, config = problem.tensors, problem.config
    prices = CentralOptions(
        welfare=chosen_welfare(config),
        penalty=penalty_by_name(config.penalty),
        kl_weight=config.kl_weight,
        weights_G=problem.weights_G,
        candidate_mask_GXK=tensors.mask_GXK,
        player_present_JG=player_present_JG,
        tol=config.tolerance,
    )
    log = (value, tensors.reference_GXK, tensors.answer_GXK, tensors.is_truth_X)
    weight = config.penalty_weight
    if config.target_inconsistency is None:
        solution = solve_central(*log, penalty_weight=weight, **prices)
    else:
        aim = config.target_inconsistency
        solution, weight = solve_to_inconsistency(*log, target_inconsistency=aim, **prices)
    prior = torch.where(tensors.mask_GXK, tensors.reference_GXK, 1.0).double()
    rank = solution.policy_GXK.clamp_min(1e-30).log() - prior.log()
    value = torch.where(tensors.mask_GXK, rank, math.nan)
    return Targets(solution.policy_GXK, value, torch.zeros_like(value), solution, weight)


ALGORITHM = Algorithm(
    summary="central critic, fair welfare, consistency penalty",
    solve=solve,
    extraction=None,
    central=True,
)
