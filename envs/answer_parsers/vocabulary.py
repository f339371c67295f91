"""Answers from a closed vocabulary: the one name in the text; naming two is hedging."""

import functools
import re

from envs.answer_parsers.wording import folded
from envs.types import UNPARSED, Question


def single(found: set[str], asked: set[str]) -> str:
    """The one answer found. Words of the question count only if nothing else was found."""
    answers = (found - asked) or found
    return answers.pop() if len(answers) == 1 else UNPARSED


def closed_vocabulary(text: str, question: Question) -> str:
    """The one choice that `text` names; naming two is hedging and counts as unparsed.

    The longest choice wins at a place ("Mexico City" over "Mexico").
    """
    pattern = alternatives(question.choices)
    return single(set(pattern.findall(text)), set(pattern.findall(question.text)))


def names(text: str, question: Question) -> str:
    """As `closed_vocabulary`, whatever the case, accents and punctuation; aliases of the gold are
    read as its first form."""
    canonical = _canonical(question.choices, question.gold)
    pattern = alternatives(tuple(canonical))
    found = {canonical[name] for name in pattern.findall(folded(text))}
    return single(found, {canonical[name] for name in pattern.findall(folded(question.text))})


def same_name(answer: str, gold: str) -> bool:
    """Whether both have the same folded form."""
    return folded(answer) == folded(gold)


@functools.lru_cache(maxsize=4096)
def _canonical(choices: tuple[str, ...], gold: tuple[str, ...]) -> dict[str, str]:
    return {folded(c): c for c in choices} | {folded(alias): gold[0] for alias in gold}


@functools.lru_cache(maxsize=4096)
def alternatives(choices: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any of `choices` as whole words, the longest at each place."""
    longest_first = sorted(choices, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
