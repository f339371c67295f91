"""SFT on the log: each group imitates whatever it was told (mu itself)."""

from trialign_ray.algorithms.algorithm import Algorithm, AlgorithmInput, Targets, make_targets


def solve(problem: AlgorithmInput) -> Targets:
    """q = mu."""
    return make_targets(problem.tensors.reference_GXK)


ALGORITHM = Algorithm(summary="supervised fine-tuning on the log", solve=solve)
