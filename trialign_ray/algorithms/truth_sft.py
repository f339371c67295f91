"""Truth-filtered SFT: imitate verified truths, and matters of taste; drop all the rest."""

from trialign_ray.algorithms.algorithm import Algorithm, AlgorithmInput, Targets, make_targets


def solve(problem: AlgorithmInput) -> Targets:
    """q = mu on answers that the visible gold confirms, renormalised; 0 where there is none."""
    tensors = problem.tensors
    taste = ~tensors.is_truth_X.reshape(1, -1, 1)
    kept = (tensors.truth_GXK == 1.0) | (taste & tensors.mask_GXK)
    policy = tensors.reference_GXK * kept
    return make_targets(policy / policy.sum(-1, keepdim=True).clamp_min(1e-9))


ALGORITHM = Algorithm(summary="supervised fine-tuning on verified truths", solve=solve)
