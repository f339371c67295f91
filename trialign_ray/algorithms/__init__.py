"""Algorithms by name. Each turns the critic's tensors into target distributions."""

from collections.abc import Callable

from torch import Tensor

from trialign_ray.algorithms import trialign
from trialign_ray.config import TargetsConfig
from trialign_ray.critic import CandidateTensors
from trialign_ray.errors import ConfigError
from trialign_ray.targets import CentralSolution

Algorithm = Callable[[CandidateTensors, TargetsConfig, Tensor], CentralSolution]
ALGORITHMS: dict[str, Algorithm] = {"trialign": trialign.solve}


def algorithm_by_name(name: str) -> Algorithm:
    """The algorithm of that name. Raises: ConfigError, listing the names there are."""
    if name not in ALGORITHMS:
        raise ConfigError(f"algorithm is {name!r}; expected one of {', '.join(sorted(ALGORITHMS))}")
    return ALGORITHMS[name]
