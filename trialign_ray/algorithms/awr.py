"""AWR: advantage-weighted regression on the scalarised reward (Peng et al., arXiv 1910.00177)."""

from trialign_ray.algorithms.algorithm import Algorithm, by_reward

ALGORITHM = Algorithm(
    summary="advantage-weighted regression, scalarised reward",
    solve=by_reward,
    extraction="awr",
)
