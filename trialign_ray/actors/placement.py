"""Resources: what a run asks for, whether the cluster has it, and the reservation."""

from typing import Any

from trialign_ray.config_sections import ResourcesConfig
from trialign_ray.errors import ConfigError

RESERVATION_TIMEOUT_S = 60.0


def bundles(num_groups: int, resources: ResourcesConfig) -> list[dict[str, float]]:
    """One bundle per group's actor, and one for the critic-learner."""
    group = {"CPU": resources.cpus_per_group}
    if resources.gpus_per_group:
        group["GPU"] = resources.gpus_per_group
    return [*(dict(group) for _ in range(num_groups)), {"CPU": resources.cpus_critic}]


def total(num_groups: int, resources: ResourcesConfig) -> dict[str, float]:
    """The sum of all bundles."""
    sums: dict[str, float] = {}
    for bundle in bundles(num_groups, resources):
        for name, amount in bundle.items():
            sums[name] = sums.get(name, 0.0) + amount
    return sums


def require_resources(
    num_groups: int, resources: ResourcesConfig, available: dict[str, float]
) -> None:
    """Refuses a run that could only wait. Raises: ConfigError with both numbers."""
    for name, needed in total(num_groups, resources).items():
        if needed > available.get(name, 0.0) + 1e-9:
            key = "cpus_per_group" if name == "CPU" else "gpus_per_group"
            raise ConfigError(
                f"{num_groups} group actors and the critic-learner need {needed:g} {name}, there "
                f"are {available.get(name, 0.0):g}; lower resources.{key} "
                f"(now {getattr(resources, key):g}) or world.num_groups, or use a larger cluster"
            )


def reserve(run_name: str, num_groups: int, resources: ResourcesConfig) -> Any:
    """A placement group with one bundle per actor. Raises: ConfigError if it does not come up."""
    import ray
    from ray.util import placement_group

    require_resources(num_groups, resources, dict(ray.cluster_resources()))
    group = placement_group(bundles(num_groups, resources), name=f"trialign/{run_name}")
    if not group.wait(RESERVATION_TIMEOUT_S):
        raise ConfigError(
            f"the cluster did not free {total(num_groups, resources)} within "
            f"{RESERVATION_TIMEOUT_S:g} s (free now: {ray.available_resources()}); wait for other "
            "jobs or lower resources.*"
        )
    return group
