"""Group DRO: one adapter, AWR, weights rise with a group's loss (arXiv 1911.08731)."""

from trialign_ray.algorithms.algorithm import Algorithm, by_reward

ALGORITHM = Algorithm(
    summary="group-robust AWR, one adapter",
    solve=by_reward,
    extraction="awr",
    sharing="group_robust",
)
