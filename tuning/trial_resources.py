"""The arithmetic of a sweep: what a trial reserves, how many fit at once, and what never would.

A request that no cluster can meet does not fail in Ray, it waits; so it is refused here, at once.
Amounts are counted in Ray's own unit, a ten-thousandth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from envs.errors import ConfigError

Resources = dict[str, float]
UNIT = 10_000
STRATEGY = "PACK"
"""A trial's bundles on as few nodes as they fit on; over several if they must."""


@dataclass(frozen=True)
class TrialResources:
    """bundles: of one trial, its driver's first, then one per actor. nodes: what each node has."""

    bundles: tuple[Resources, ...]
    nodes: tuple[Resources, ...]

    @cached_property
    def at_once(self) -> int:
        """Trials that fit side by side, placed one after the other as Ray packs them."""
        free, count = [_units(node) for node in self.nodes], 0
        while _place(free, [_units(bundle) for bundle in self.bundles]):
            count += 1
        return count

    def require_feasible(self) -> None:
        """Raises: ConfigError with both numbers if not even one trial could ever start."""
        for bundle in self.bundles:
            self._require_node(bundle)
        for name, needed in total(self.bundles).items():
            there = total(self.nodes).get(name, 0.0)
            if needed > there:
                raise ConfigError(
                    f"a trial needs {needed:g} {name} for its driver and {len(self.bundles) - 1} "
                    f"actors, the cluster has {there:g}; lower resources.{_key(name)} or "
                    "world.num_groups, or use a larger cluster"
                )
        if self.at_once == 0:
            raise ConfigError(
                f"a trial needs {words(total(self.bundles))}, the cluster has "
                f"{words(total(self.nodes))}, but in pieces into which its "
                f"{len(self.bundles)} bundles do not fit; lower resources.*"
            )

    def _require_node(self, bundle: Resources) -> None:
        if any(_fits(_units(node), _units(bundle)) for node in self.nodes):
            return
        largest = max(self.nodes, key=lambda n: [n.get(name, 0.0) for name in bundle], default={})
        raise ConfigError(
            f"one actor needs {words(bundle)} on one node, the largest node has "
            f"{words({name: largest.get(name, 0.0) for name in bundle})}; lower resources.*, or "
            "use larger nodes"
        )

    def concurrent(self, most: int | None) -> int:
        """Trials to run at once: as many as fit, or fewer if asked for. Raises: ConfigError."""
        self.require_feasible()
        return self.at_once if most is None else min(most, self.at_once)

    def lines(self, num_trials: int, most: int | None = None) -> list[str]:
        """The arithmetic in words."""
        return [
            f"one trial: {words(total(self.bundles))} in {len(self.bundles)} bundles (driver and "
            f"{len(self.bundles) - 1} actors)",
            f"cluster: {words(total(self.nodes))} on {len(self.nodes)} node"
            + ("s" if len(self.nodes) > 1 else ""),
            f"trials: {num_trials}, at most {self.concurrent(most)} at once",
        ]


def total(parts: Sequence[Resources]) -> Resources:
    """The sum by name, of CPU and GPU alone."""
    names = dict.fromkeys(name for part in parts for name in part if name in ("CPU", "GPU"))
    return {n: sum(round(p.get(n, 0.0) * UNIT) for p in parts) / UNIT for n in names}


def words(resources: Resources) -> str:
    """Such as `1.35 CPU, 2 GPU`."""
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())


def _units(resources: Resources) -> dict[str, int]:
    return {name: round(amount * UNIT) for name, amount in resources.items()}


def _fits(free: dict[str, int], bundle: dict[str, int]) -> bool:
    return all(amount <= free.get(name, 0) for name, amount in bundle.items())


def _place(free: list[dict[str, int]], bundles: list[dict[str, int]]) -> bool:
    """Takes a trial's bundles from the nodes, whole on one if it can be, else large bundles first;
    False, and nothing taken, if they do not fit."""
    for nodes in [[node] for node in free] + [free]:
        tried = [dict(node) for node in nodes]
        for bundle in sorted(bundles, key=lambda b: -sum(b.values())):
            room = next((node for node in tried if _fits(node, bundle)), None)
            if room is None:
                break
            for name, amount in bundle.items():
                room[name] -= amount
        else:
            for node, left in zip(nodes, tried, strict=True):
                node.update(left)
            return bool(bundles)
    return False


def _key(name: str) -> str:
    return "gpus_per_group" if name == "GPU" else "cpus_per_group"
