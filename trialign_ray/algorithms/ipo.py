"""Per-group IPO: a squared margin in place of the logistic (Azar et al. 2023, arXiv 2310.12036)."""

from trialign_ray.algorithms.algorithm import Algorithm, by_reward

ALGORITHM = Algorithm(
    summary="IPO on each group's own pairs",
    solve=by_reward,
    extraction="ipo",
)
