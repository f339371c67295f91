"""Resources: what a run asks for, whether the cluster has it, and the reservation."""

from dataclasses import dataclass
from typing import Any

from trialign_ray.config_sections import ResourcesConfig
from trialign_ray.errors import ConfigError, WorkerError

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


@dataclass(frozen=True)
class Reservation:
    """Where a run's actors find their resources: one bundle each, in the order of `bundles`.

    group: a placement group. first_bundle: of its bundles, the first actor's. owned: it ends with
    the run; else it is lent by who started this process, a trial of Ray Tune.
    """

    group: Any
    first_bundle: int = 0
    owned: bool = True

    def strategy(self, index: int) -> Any:
        """The scheduling of actor `index`: in its own bundle and nowhere else."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        return PlacementGroupSchedulingStrategy(self.group, self.first_bundle + index)

    def release(self) -> None:
        """Gives back what is owned."""
        from ray.util import remove_placement_group

        if self.owned:
            remove_placement_group(self.group)


def reserve(run_name: str, num_groups: int, resources: ResourcesConfig) -> Reservation:
    """A reservation of one's own. Raises: ConfigError if it does not come up."""
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
    return Reservation(group)


def trial_bundles(
    num_groups: int, resources: ResourcesConfig, driver_cpus: float
) -> list[dict[str, float]]:
    """Bundles of a trial of a sweep: its driver's first, then those of its actors."""
    return [{"CPU": driver_cpus}, *bundles(num_groups, resources)]


def borrow(num_groups: int, resources: ResourcesConfig) -> Reservation:
    """The bundles after the driver's in the placement group that this process runs in.

    Actors of a trial that stand outside of its group would wait for what all trials hold together,
    for ever. Raises: WorkerError if there is no group, or it lacks a bundle for some actor.
    """
    from ray.util import get_current_placement_group

    group = get_current_placement_group()
    if group is None:
        raise WorkerError(
            "this process runs in no placement group, so its actors have no place; start trials "
            "by `trialign tune`"
        )
    needed, lent = bundles(num_groups, resources), group.bundle_specs[1:]
    if not _covers(lent, needed):
        raise WorkerError(
            f"the trial's placement group has bundles {lent} for its actors, they need {needed}; "
            "resources.* and world.num_groups must be the same for all trials of a sweep"
        )
    return Reservation(group, first_bundle=1, owned=False)


def _covers(lent: list[dict[str, float]], needed: list[dict[str, float]]) -> bool:
    """Whether every actor's bundle holds what it needs."""
    return len(lent) >= len(needed) and all(
        amount <= there.get(name, 0.0) + 1e-9
        for there, bundle in zip(lent, needed, strict=False)
        for name, amount in bundle.items()
    )
