"""Per-group DPO: each group's adapter learns its own preference pairs (arXiv 2305.18290)."""

from trialign_ray.algorithms.algorithm import Algorithm, by_reward

ALGORITHM = Algorithm(
    summary="DPO on each group's own pairs",
    solve=by_reward,
    extraction="dpo",
)
