"""DRO: direct reward optimisation, a squared error of reward and log-ratio (arXiv 2405.19107)."""

from trialign_ray.algorithms.algorithm import Algorithm, by_reward

ALGORITHM = Algorithm(
    summary="direct reward optimisation of each group",
    solve=by_reward,
    extraction="dro",
)
