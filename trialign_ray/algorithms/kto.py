"""Per-group KTO: desirable and undesirable answers, unpaired (arXiv 2402.01306)."""

from trialign_ray.algorithms.algorithm import Algorithm, by_reward

ALGORITHM = Algorithm(
    summary="KTO on each group's own answers",
    solve=by_reward,
    extraction="kto",
)
