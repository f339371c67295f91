"""RLlib's PPO, one policy per group, on the choice among its own logged answers.

Its choices become targets of the same cloning that TriAlign uses.
"""

from trialign_ray.algorithms.algorithm import Algorithm, AlgorithmInput, Targets, make_targets


def solve(problem: AlgorithmInput) -> Targets:
    """q = the trained policies' probabilities of the candidates."""
    import torch

    from trialign_ray.actors.independent_ppo import choice_problem, train_independent_ppo
    from trialign_ray.critic import weighted_values

    tensors, config = problem.tensors, problem.config
    reward = weighted_values(tensors, config.truth_weight, config.personalization_weight)
    policy = train_independent_ppo(choice_problem(tensors, reward), seed=problem.seed)
    return make_targets(torch.as_tensor(policy, dtype=tensors.reference_GXK.dtype))


ALGORITHM = Algorithm(summary="RLlib's independent PPO on the candidate-choice world", solve=solve)
