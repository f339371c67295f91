"""Verifiers: read the answer out of an utterance, and compare it with the gold.

One parser serves every group: a parser that knows one group's style better would itself be unfair.
"""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

from envs.errors import ConfigError
from envs.types import ABSTAIN, UNPARSED, Question

_ABSTENTIONS = ("i do not know", "i don't know", "i cannot say", "i can't say")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w)(?!\.\d)")
_OPTION_LETTER = re.compile(
    r"^\W*([A-Z])\W*$|\(([A-Z])\)|(?:^|\s)([A-Z])[.):]|[Aa]nswer(?: is|:)? ([A-Z])(?!\w)"
)


class Verifier(NamedTuple):
    """`parse(text, question)` gives the canonical answer; `equal(answer, gold)` compares."""

    parse: Callable[[str, Question], str]
    equal: Callable[[str, str], bool]


def normalise(text: str) -> str:
    """Case folded, punctuation at both ends and repeated spaces removed."""
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'")


def _single(found: set[str], asked: set[str]) -> str:
    """The one answer found. Words of the question count only if nothing else was found."""
    answers = (found - asked) or found
    return answers.pop() if len(answers) == 1 else UNPARSED


def _closed_vocabulary(text: str, question: Question) -> str:
    """The one choice that `text` names; naming two is hedging and counts as unparsed.

    The longest choice wins at a place ("Mexico City" over "Mexico").
    """
    pattern = _alternatives(question.choices)
    return _single(set(pattern.findall(text)), set(pattern.findall(question.text)))


@functools.lru_cache(maxsize=4096)
def _alternatives(choices: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(choices, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")


def _exact(text: str, question: Question) -> str:
    return normalise(text) or UNPARSED


def _numeric(text: str, question: Question) -> str:
    """The one number of `text` that the question does not name, without needless zeros."""
    found = {f"{float(n):.12g}" for n in _NUMBER.findall(text)}
    asked = {f"{float(n):.12g}" for n in _NUMBER.findall(question.text)}
    return _single(found, asked)


def _multiple_choice(text: str, question: Question) -> str:
    """An option by its letter, or else by its wording."""
    found = {letter for match in _OPTION_LETTER.findall(text) for letter in match if letter}
    letters = {letter for letter in found if ord(letter) - ord("A") < len(question.choices)}
    if len(letters) == 1:
        return question.choices[ord(letters.pop()) - ord("A")]
    worded = [
        c
        for c in question.choices
        if re.search(rf"(?<!\w){re.escape(normalise(c))}(?!\w)", normalise(text))
    ]
    return worded[0] if len(worded) == 1 else UNPARSED


VERIFIERS = {
    "closed_vocabulary": Verifier(_closed_vocabulary, lambda a, b: a == b),
    "exact": Verifier(_exact, lambda a, b: a == normalise(b)),
    "numeric": Verifier(_numeric, lambda a, b: abs(float(a) - float(b)) <= 1e-9 * abs(float(b))),
    "multiple_choice": Verifier(_multiple_choice, lambda a, b: a == b),
}


def parse_answer(text: str, question: Question) -> str:
    """The canonical answer in `text`, or `abstain`, or `unparsed`."""
    if any(phrase in text.lower() for phrase in _ABSTENTIONS):
        return ABSTAIN
    return _verifier(question).parse(text, question)


def truth_of(answer: str, question: Question) -> float | None:
    """1 if the canonical `answer` is true, 0 if it is not, None where the question has no gold."""
    if not question.has_truth or not question.gold:
        return None
    if answer in (ABSTAIN, UNPARSED):
        return 0.0
    return float(any(_verifier(question).equal(answer, gold) for gold in question.gold))


def _verifier(question: Question) -> Verifier:
    if question.verifier not in VERIFIERS:
        raise ConfigError(
            f"question {question.id!r} asks for verifier {question.verifier!r}; "
            f"there are {', '.join(VERIFIERS)}"
        )
    return VERIFIERS[question.verifier]
