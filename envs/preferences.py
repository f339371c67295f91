"""Preference scorers: how well an utterance suits a group, in [0, 1].

Rules come first, since a rule can be read and checked. Classifiers, reward models and judges share
the protocol. A slow scorer may offer `prepare`, which is told beforehand what will be scored.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from envs.style_rules import StyleRules, check_style
from envs.types import Question

ToScore = tuple[str, Question, str, str]
"""What a scorer is asked about: group, question, utterance and its parsed answer."""


class PreferenceScorer(Protocol):
    """Scores one utterance for one group; None where it has no opinion."""

    def score(self, group: str, question: Question, text: str, answer: str) -> float | None: ...


@runtime_checkable
class BatchScorer(Protocol):
    """A scorer that works in batches: `prepare` computes what `score` then only looks up.

    Scores are the same without it, but one at a time.
    """

    def score(self, group: str, question: Question, text: str, answer: str) -> float | None: ...

    def prepare(self, items: Sequence[ToScore]) -> None: ...


def prepare(scorer: PreferenceScorer, items: Sequence[ToScore]) -> None:
    """Tells `scorer` what it will be asked, if it wants to know."""
    if items and isinstance(scorer, BatchScorer):
        scorer.prepare(items)


class StyleScorer:
    """The share of a group's style rules that an utterance keeps; None without rules."""

    def __init__(self, rules_by_group: Mapping[str, StyleRules]):
        self._rules = dict(rules_by_group)

    def score(self, group: str, question: Question, text: str, answer: str) -> float | None:
        checked = check_style(text, answer, self._rules[group])
        return sum(checked.values()) / len(checked) if checked else None


class CongenialScorer:
    """1 where the answer is what the group likes to hear, else 0; None where it likes nothing.

    For a taste this is personalization; for a fact it is sycophancy, the flaw of many raters.
    """

    def __init__(self, congenial: Mapping[tuple[str, str], str]):
        self._congenial = dict(congenial)

    def score(self, group: str, question: Question, text: str, answer: str) -> float | None:
        liked = self._congenial.get((group, question.id))
        return None if liked is None else float(answer == liked)


class WeightedScorer:
    """The weighted mean of the scorers that have an opinion; None where none has."""

    def __init__(self, scorers: Sequence[tuple[float, PreferenceScorer]]):
        self._scorers = [(weight, scorer) for weight, scorer in scorers if weight > 0]

    @property
    def scorers(self) -> tuple[PreferenceScorer, ...]:
        """Those that count."""
        return tuple(scorer for _, scorer in self._scorers)

    def score(self, group: str, question: Question, text: str, answer: str) -> float | None:
        total = weight_sum = 0.0
        for weight, scorer in self._scorers:
            value = scorer.score(group, question, text, answer)
            if value is not None:
                total, weight_sum = total + weight * value, weight_sum + weight
        return total / weight_sum if weight_sum else None

    def prepare(self, items: Sequence[ToScore]) -> None:
        """Tells every scorer that works in batches what will be asked."""
        for _, scorer in self._scorers:
            prepare(scorer, items)
