"""Which keys a configuration reads at all. A dimension that a point does not read is idle there: it
is left out of the point's settings and shown as idle, never quietly swept."""

from collections.abc import Callable
from dataclasses import dataclass

from trialign_ray.config import Config

SEARCHED = ("algorithm", "critic", "targets", "clone")
"""Sections that a trial may set. All others decide the log and the exam, which trials share."""
CENTRAL, UNREWARDED = ("trialign", "consistency_only"), ("sft", "truth_sft", "consistency_only")
"""Algorithms that solve a central problem; those that look at no reward."""
WELFARE_OPTIONS = {
    "welfare_exponent": "power_mean",
    "welfare_level": "cvar",
    "welfare_temperature": "soft_min",
    "welfare_omega": "generalized_gini",
}
"""Options of the mixing operators, and whose they are."""


@dataclass(frozen=True)
class Condition:
    """When a key is read: the test, and the same in words."""

    holds: Callable[[Config], bool]
    words: str


def condition_of(key: str) -> Condition | None:
    """When the key is read; None: always."""
    section, _, name = key.partition(".")
    if section == "critic":
        return _critic(name)
    if section == "targets":
        return _targets(name)
    return _clone(name) if section == "clone" else None


def _targets(name: str) -> Condition | None:
    if name in WELFARE_OPTIONS:
        welfare = WELFARE_OPTIONS[name]
        return Condition(
            lambda c: c.algorithm == "trialign" and c.targets.welfare == welfare,
            f"targets.welfare is {welfare}",
        )
    if name in ("truth_weight", "personalization_weight"):
        return Condition(
            lambda c: (
                c.targets.players == "groups"
                if c.algorithm == "trialign"
                else c.algorithm not in UNREWARDED
            ),
            "targets.players is groups",
        )
    if name in ("welfare", "players"):
        return Condition(lambda c: c.algorithm == "trialign", "algorithm is trialign")
    if name == "penalty_weight":
        return Condition(
            lambda c: c.algorithm in CENTRAL and c.targets.target_inconsistency is None,
            "targets.target_inconsistency is null and the algorithm solves a central problem",
        )
    return _central()


def _central() -> Condition:
    return Condition(lambda c: c.algorithm in CENTRAL, f"algorithm is {' or '.join(CENTRAL)}")


def _critic(name: str) -> Condition:
    if name in ("expectile", "value_steps", "team_reward"):
        return Condition(
            lambda c: c.algorithm in CENTRAL and c.critic.discount > 0, "critic.discount is above 0"
        )
    return _central()


def _clone(name: str) -> Condition | None:
    losses = {"temperature": ("awr",), "pair_beta": ("dpo", "ipo", "kto", "dro")}.get(name)
    if losses is None:
        return None
    return Condition(
        lambda c: c.algorithm not in CENTRAL or c.clone.extraction in losses,
        f"clone.extraction is {' or '.join(losses)}",
    )
