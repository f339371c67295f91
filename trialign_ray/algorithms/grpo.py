"""Offline GRPO: clipped ratios to the log, advantages within a question (arXiv 2402.03300)."""

from trialign_ray.algorithms.algorithm import Algorithm, by_reward

ALGORITHM = Algorithm(
    summary="offline GRPO on each group's own answers",
    solve=by_reward,
    extraction="grpo",
)
