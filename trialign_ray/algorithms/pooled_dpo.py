"""Pooled DPO: one adapter for everyone, all groups' pairs alike (arXiv 2305.18290)."""

from trialign_ray.algorithms.algorithm import Algorithm, by_reward

ALGORITHM = Algorithm(
    summary="DPO, one adapter on all groups' pairs",
    solve=by_reward,
    extraction="dpo",
    sharing="pooled",
)
