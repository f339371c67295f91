"""Answers that are one number, with separators, currency and units."""

import re

from envs.answer_parsers.vocabulary import single
from envs.answer_parsers.wording import final_statement
from envs.types import UNPARSED, Question

_UNIT = r"(?:k?m|c?m|mm|k?g|mg|lbs?|ft|mph|h|min|st|nd|rd|th)"
_SCALE = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_NUMBER = re.compile(
    r"(?<![\w.,])(-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?)"
    rf"(?![.,]?\d)(?=(?:{_UNIT})?(?!\w))(?:\s+({'|'.join(_SCALE)})\b)?",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def numeric_statement(text: str, question: Question) -> str | None:
    """The number that `text` declares its final answer; None if it declares none."""
    statement = final_statement(text)
    if statement is None:
        return None
    found = numbers(statement.rsplit("=", 1)[-1])
    return found.pop() if len(set(found)) == 1 else None


def numeric(text: str, question: Question) -> str:
    """The number of the last sentence that has one: what follows its last equals sign, or else the
    only one that the question does not name."""
    asked = set(numbers(question.text))
    for sentence in reversed(_SENTENCE.split(text)):
        if found := set(numbers(sentence)):
            computed = set(numbers(sentence.rsplit("=", 1)[-1])) if "=" in sentence else set()
            return computed.pop() if len(computed) == 1 else single(found, asked)
    return UNPARSED


def same_number(answer: str, gold: str) -> bool:
    """Whether both are the same number, to one part in 1e9."""
    expected = numbers(gold)
    return len(expected) == 1 and abs(float(answer) - float(expected[0])) <= 1e-9 * abs(
        float(expected[0])
    )


def numbers(text: str) -> list[str]:
    """Every number in `text`, without separators and needless zeros."""
    plain = re.sub(r"\\[!,;]|\{,\}|[\u00a0\u202f](?=\d{3})", ",", text).replace("−", "-")
    plain = re.sub(r",+", ",", re.sub(r"\\text\{[^{}]*\}|\\[$%]|[$€£¥*_]", "", plain))
    return [
        f"{float(digits.replace(',', '')) * _SCALE.get(scale.lower(), 1):.12g}"
        for digits, scale in _NUMBER.findall(plain)
    ]
