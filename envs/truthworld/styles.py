"""How a TruthWorld group speaks: a fact's answer dressed in greeting, order, length and closing."""

from random import Random

from envs.groups import Group
from envs.preferences import StyleRules
from envs.types import Question

_PREFIX, _SUFFIX = "What is ", "?"


def styled_answer(question: Question, answer: str, rules: StyleRules) -> str:
    """`answer` as a sentence that keeps every rule, e.g. "Hey! Paris. Cheers!"."""
    topic = question.text.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    if rules.order == "answer_first":
        body = f"{answer} is {topic}."
    elif rules.order == "answer_last":
        body = f"{topic[:1].upper()}{topic[1:]} is {answer}."
    else:
        body = f"{answer}."
    return " ".join(part for part in (rules.greeting, body, rules.closing) if part)


PLAIN_STYLES = (
    StyleRules(order="answer_last"),
    StyleRules(order="answer_first"),
    StyleRules(max_words=3),
)
"""The facts base speaks in each of these, whoever asks: it must know a fact at any place of a
sentence, or groups whose style puts the answer first would be harder to serve."""


def noisy_rules(own: Group, others: list[Group], rate: float, generator: Random) -> StyleRules:
    """The group's own rules, or with probability `rate` those of another group."""
    if others and generator.random() < rate:
        return generator.choice(others).style
    return own.style
