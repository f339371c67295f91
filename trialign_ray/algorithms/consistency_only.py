"""Consistency only: groups shall agree, whatever on; no truth, no preference."""

import torch

from trialign_ray.algorithms.algorithm import Algorithm, AlgorithmInput, Targets
from trialign_ray.algorithms.trialign import central_targets


def solve(problem: AlgorithmInput) -> Targets:
    """The central problem with all returns 0: - lambda D - beta KL alone."""
    return central_targets(problem, torch.zeros_like(problem.tensors.reference_GXK), None)


ALGORITHM = Algorithm(summary="the consistency penalty alone", solve=solve, central=True)
