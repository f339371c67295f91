"""MaxMin: one adapter, each update serves the group of least return (after arXiv 2402.08925).

The paper learns groups by clustering; here they are known, and rewards are the log's.
"""

from trialign_ray.algorithms.algorithm import Algorithm, by_reward

ALGORITHM = Algorithm(
    summary="one adapter for the worst-off group's reward",
    solve=by_reward,
    extraction="awr",
    sharing="worst_group",
)
