"""Verifiers: read the answer out of an utterance, and compare it with the gold.

One parser serves every group: a parser that knows one group's style better would itself be unfair.
"""

from collections.abc import Callable, Iterable, Sequence
from string import ascii_uppercase
from typing import NamedTuple

from envs.answer_parsers.maths import math_answer, math_statement, same_expression
from envs.answer_parsers.numbers import numbers, numeric, numeric_statement, same_number
from envs.answer_parsers.options import any_option, stated_option
from envs.answer_parsers.references import nearest_reference
from envs.answer_parsers.vocabulary import closed_vocabulary, names, same_name
from envs.answer_parsers.wording import boxed, exact_form, refuses, without_reasoning
from envs.errors import ConfigError, DataError
from envs.types import ABSTAIN, UNPARSED, Question


class Verifier(NamedTuple):
    """`parse(text, question)` gives the canonical answer; `equal(answer, gold)` compares.

    `stated(text, question)`, where there is one, is an answer that the text declares final: it
    counts even if the text says elsewhere that something is not known.
    """

    parse: Callable[[str, Question], str]
    equal: Callable[[str, str], bool]
    stated: Callable[[str, Question], str | None] | None = None


def _exact(text: str, question: Question) -> str:
    """The whole text; an alias of the gold is read as the gold's first form."""
    answer = exact_form(text)
    if any(answer == exact_form(alias) for alias in question.gold):
        return exact_form(question.gold[0])
    return answer or UNPARSED


VERIFIERS = {
    "closed_vocabulary": Verifier(closed_vocabulary, lambda a, b: a == b),
    "names": Verifier(names, same_name),
    "exact": Verifier(_exact, lambda a, b: a == exact_form(b)),
    "numeric": Verifier(numeric, same_number, numeric_statement),
    "math": Verifier(math_answer, same_expression, math_statement),
    "multiple_choice": Verifier(any_option, lambda a, b: a == b, stated_option),
    "reference": Verifier(nearest_reference, lambda a, b: a == b),
}


def parse_answer(text: str, question: Question) -> str:
    """The canonical answer in `text`, or `abstain`, or `unparsed`."""
    verifier = _verifier(question)
    said = without_reasoning(text)
    stated = verifier.stated(said, question) if verifier.stated else None
    if stated is not None:
        return stated
    options = question.choices if question.verifier == "multiple_choice" else ()
    return ABSTAIN if refuses(said, options) else verifier.parse(said, question)


def truth_of(answer: str, question: Question) -> float | None:
    """1 if the canonical `answer` is true, 0 if it is not, None where the question has no gold."""
    if not question.has_truth or not question.gold:
        return None
    if answer in (ABSTAIN, UNPARSED):
        return 0.0
    return float(any(_verifier(question).equal(answer, gold) for gold in question.gold))


def gold_problem(question: Question) -> str | None:
    """Why the gold of `question` would never count as true; None if each accepted answer does.

    Raises: ConfigError for an unknown verifier.
    """
    _verifier(question)
    if not question.has_truth:
        return None
    if not question.gold:
        return f"kind {question.kind} needs gold, a list of accepted answers"
    if not all(gold.strip() for gold in question.gold):
        return "gold is empty"
    choices = question.choices
    if question.verifier in ("closed_vocabulary", "multiple_choice", "names"):
        if len(set(choices)) < 2:
            return f"verifier {question.verifier} needs at least 2 choices"
        if not set(question.gold) & set(choices) or (
            question.verifier != "names" and not set(question.gold) <= set(choices)
        ):
            outside = next(gold for gold in question.gold if gold not in choices)
            return f"gold {outside!r} is not among the choices; give the option's text"
    if question.verifier == "multiple_choice" and len(choices) > len(ascii_uppercase):
        return f"{len(choices)} choices are more than there are letters"
    if question.verifier in ("math", "numeric") and _gives_itself_away(question):
        return r"the text holds its own answer in \boxed{}"
    return next(filter(None, (_unaccepted(gold, question) for gold in question.gold)), None)


def check_gold(questions: Iterable[Question]) -> None:
    """Raises: DataError that counts the questions whose gold no verifier accepts, and names the
    first."""
    refused = [(q.id, why) for q in questions if (why := gold_problem(q)) is not None]
    if refused:
        raise DataError(
            f"{len(refused)} questions have a gold that would never count as true: "
            + "; ".join(f"{question_id!r}: {why}" for question_id, why in refused[:3])
            + ("; ..." if len(refused) > 3 else "")
        )


def _unaccepted(gold: str, question: Question) -> str | None:
    if question.verifier == "numeric" and len(numbers(gold)) != 1:
        return f"gold {gold!r} is no number, as numeric needs it"
    answer = parse_answer(_said(gold, question), question)
    if truth_of(answer, question) == 1.0:
        return None
    return f"gold {gold!r} is read as {answer!r} by verifier {question.verifier}, never as true"


def _gives_itself_away(question: Question) -> bool:
    shown = [rf"\boxed{{{content}}}" for content in boxed(question.text) if content]
    return any(truth_of(parse_answer(said, question), question) == 1.0 for said in shown)


def _said(gold: str, question: Question) -> str:
    """The gold as a model would say it."""
    if question.verifier == "multiple_choice":
        return f"{_letter(gold, question.choices)}) {gold}"
    return rf"\boxed{{{gold}}}" if question.verifier in ("math", "numeric") else gold


def _letter(option: str, choices: Sequence[str]) -> str:
    return ascii_uppercase[choices.index(option)]


def _verifier(question: Question) -> Verifier:
    if question.verifier not in VERIFIERS:
        raise ConfigError(
            f"question {question.id!r} asks for verifier {question.verifier!r}; "
            f"there are {', '.join(VERIFIERS)}"
        )
    return VERIFIERS[question.verifier]
