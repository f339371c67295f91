"""GR-DPO: one adapter, group weights rise with the group's loss (arXiv 2405.20304)."""

from trialign_ray.algorithms.algorithm import Algorithm, by_reward

ALGORITHM = Algorithm(
    summary="group-robust DPO, one adapter",
    solve=by_reward,
    extraction="dpo",
    sharing="group_robust",
)
