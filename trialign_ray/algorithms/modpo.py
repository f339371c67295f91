"""MODPO: DPO on truth pairs with personalization as margin (Zhou et al. 2023, arXiv 2310.03708)."""

from dataclasses import replace

import torch

from trialign_ray.algorithms.algorithm import Algorithm, AlgorithmInput, Targets, make_targets


def solve(problem: AlgorithmInput) -> Targets:
    """Visible truth ranks candidates (personalization where no truth is visible); the margin is
    w_P / w_T times personalization where truth ranks, NaN where that is not known."""
    tensors, config = problem.tensors, problem.config
    by_truth = (~tensors.truth_GXK.isnan()).any(-1, keepdim=True)
    value = torch.where(by_truth, tensors.truth_GXK, tensors.personalization_GXK)
    ratio = config.personalization_weight / max(config.truth_weight, 1e-9)
    margin = torch.where(by_truth, ratio * tensors.personalization_GXK, 0.0)
    return replace(make_targets(tensors.reference_GXK, value), margin_GXK=margin)


ALGORITHM = Algorithm(
    summary="multi-objective DPO: truth pairs, personalization as margin",
    solve=solve,
    extraction="dpo",
)
