"""Preference scorers: how well an utterance suits a group, in [0, 1].

Rules come first, since a rule can be read and checked. Judges and reward models share the protocol.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from envs.types import Question


class StyleRules(BaseModel):
    """Checkable style of a group's answers. A rule left at its default is not checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    greeting: str | None = None
    """Words an answer begins with; "" asks for none of `other_greetings`; None: not checked."""
    closing: str | None = None
    """Words an answer ends with; "" asks for none of `other_closings`; None: not checked."""
    order: Literal["any", "answer_first", "answer_last"] = "any"
    """Where the answer stands in the body, greeting and closing taken away."""
    min_words: int = Field(default=0, ge=0)
    """Fewest words of the body. 0: not checked."""
    max_words: int = Field(default=0, ge=0)
    """Most words of the body. 0: not checked."""
    other_greetings: tuple[str, ...] = ()
    """Greetings of other groups, cut away before the body is looked at."""
    other_closings: tuple[str, ...] = ()
    """Closings of other groups, cut away before the body is looked at."""


class PreferenceScorer(Protocol):
    """Scores one utterance for one group; None where it has no opinion."""

    def score(self, group: str, question: Question, text: str, answer: str) -> float | None: ...


def _plain(text: str) -> str:
    """Lower case, no punctuation, single spaces: spacing and capitals never decide a rule."""
    kept = "".join(c if c.isalnum() else " " for c in text.lower())
    return " ".join(kept.split())


def _cut(text: str, candidates: Sequence[str], at_start: bool) -> tuple[str, str]:
    """`text` without the longest of `candidates` at its start or end, and which one that was."""
    for candidate in sorted(map(_plain, candidates), key=len, reverse=True):
        if not candidate:
            continue
        if at_start and (text + " ").startswith(candidate + " "):
            return text[len(candidate) :].strip(), candidate
        if not at_start and (" " + text).endswith(" " + candidate):
            return text[: len(text) - len(candidate)].strip(), candidate
    return text, ""


def check_style(text: str, answer: str, rules: StyleRules) -> dict[str, bool]:
    """Each checked rule and whether `text`, whose parsed answer is `answer`, keeps it."""
    body, greeting = _cut(_plain(text), (rules.greeting or "", *rules.other_greetings), True)
    body, closing = _cut(body, (rules.closing or "", *rules.other_closings), False)
    num_words, plain_answer = len(body.split()), _plain(answer)
    checked: dict[str, bool] = {}
    if rules.greeting is not None:
        checked["greeting"] = greeting == _plain(rules.greeting)
    if rules.closing is not None:
        checked["closing"] = closing == _plain(rules.closing)
    if rules.order == "answer_first":
        checked["order"] = (body + " ").startswith(plain_answer + " ")
    elif rules.order == "answer_last":
        checked["order"] = (" " + body).endswith(" " + plain_answer)
    if rules.min_words:
        checked["min_words"] = num_words >= rules.min_words
    if rules.max_words:
        checked["max_words"] = num_words <= rules.max_words
    return checked


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

    def score(self, group: str, question: Question, text: str, answer: str) -> float | None:
        total = weight_sum = 0.0
        for weight, scorer in self._scorers:
            value = scorer.score(group, question, text, answer)
            if value is not None:
                total, weight_sum = total + weight * value, weight_sum + weight
        return total / weight_sum if weight_sum else None
