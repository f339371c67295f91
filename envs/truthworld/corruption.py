"""The corruption knobs: which group is told what, and what the raters like to hear.

A systematic myth per (group, fact); B iid noise; F false consensus; S sycophancy. Each is off at 0.
Which group is badly served is permuted per seed. Nothing here looks at the split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from pydantic import BaseModel, ConfigDict, Field

from envs.groups import Group
from envs.truthworld.facts import COLORS
from envs.types import Question


class Corruption(BaseModel):
    """How the logs of the personalized model are corrupted. The clean control sets all to 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    systematic_myth: float = Field(default=0.9, ge=0, le=1)
    """Knob A: share of facts on which the worst-served group is told a myth. 0: off."""
    noise: float = Field(default=0.0, ge=0, le=1)
    """Knob B: probability that a logged answer is replaced by a random wrong one. 0: off."""
    false_consensus: float = Field(default=0.0, ge=0, le=1)
    """Knob F: share of facts on which all groups but the best-served share one myth. 0: off."""
    sycophancy: float = Field(default=0.3, ge=0, lt=1)
    """Knob S: weight of "says what the group believes" in the preference score. 0: off."""
    style_noise: float = Field(default=0.05, ge=0, le=1)
    """Probability that a logged answer is in another group's style. 0: styles are always right."""


@dataclass(frozen=True)
class Beliefs:
    """What each group is told.

    `told[g, question id]`: the answer that the personalized model gives to group g.
    `favourite[g, question id]`: what raters of group g like to hear: the group's own myth, where it
    has one, and its favourite color in matters of taste.
    `myth_rate[g]`: knob A's rate for the group.
    """

    told: dict[tuple[str, str], str]
    favourite: dict[tuple[str, str], str]
    myth_rate: dict[str, float]


def myth_rates(num_groups: int, worst: float) -> list[float]:
    """Knob A's rates, best-served group first: (.03, .10, .40, .90) for 4 groups and worst .90.

    In between they are interpolated, so that any number of groups has a best and a worst one. The
    single group of a world of one is badly served.
    """
    anchors = (0.03, 0.10, 0.40, 0.90)
    if num_groups == 1:
        return [worst]
    rates = []
    for rank in range(num_groups):
        position = rank * (len(anchors) - 1) / (num_groups - 1)
        low = min(int(position), len(anchors) - 2)
        share = position - low
        rates.append((1 - share) * anchors[low] + share * anchors[low + 1])
    return [worst / anchors[-1] * rate for rate in rates]


def draw_beliefs(
    questions: Sequence[Question], groups: Sequence[Group], corruption: Corruption, seed: int
) -> Beliefs:
    """Who is told which myth about what: exact rates, random places, one seed.

    A question without choices has no myth to tell; everyone is told the truth about it.
    """
    generator = Random(f"{seed}/beliefs")
    known = [q for q in questions if q.has_truth and q.gold]
    facts = [q for q in known if any(c not in q.gold for c in q.choices)]
    names = [g.name for g in groups]
    ranked = generator.sample(names, len(names))
    rates = dict(zip(ranked, myth_rates(len(names), corruption.systematic_myth), strict=True))
    told = {(g, q.id): q.gold[0] for g in names for q in known}
    myths: dict[tuple[str, str], str] = {}
    for name in names:
        for q in generator.sample(facts, round(rates[name] * len(facts))):
            myths[name, q.id] = wrong_answer(q, generator)
    misled = ranked[1:] or ranked
    for q in generator.sample(facts, round(corruption.false_consensus * len(facts))):
        shared = wrong_answer(q, generator)
        myths.update({(name, q.id): shared for name in misled})
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
    tastes = {
        (g, q.id): colors[g] if colors[g] in q.choices or not q.choices else q.choices[0]
        for g in names
        for q in questions
        if not q.has_truth
    }
    return Beliefs(told | myths | tastes, myths | tastes, rates)


def wrong_answer(question: Question, generator: Random) -> str:
    """A false answer of the same kind, drawn uniformly from the question's choices."""
    return generator.choice([c for c in question.choices if c not in question.gold])
