"""Multiple-choice questions: the order of their options and the text that shows them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_uppercase

from envs.types import Question, unit_hash

INSTRUCTION = "Begin your answer with the letter of the right option."
OPINION = "Begin your answer with the letter of your choice."
_REFERS_TO_OTHERS = re.compile(
    r"(?i:\b(?:all|none|both|any|neither|either) of (?:the above|these|the following|them)\b)"
    r"|\b[A-E](?:, [A-E])*,? (?:and|or) [A-E]\b",
)


def shuffled_order(options: Sequence[str], question_id: str) -> list[int]:
    """The order in which options are shown: a function of the question's id, alike for all groups.

    Where an option refers to others ("all of the above", "B and C") the file's order stays.
    """
    if any(_REFERS_TO_OTHERS.search(option) for option in options):
        return list(range(len(options)))
    return sorted(range(len(options)), key=lambda i: unit_hash("options", question_id, i))


def with_options(
    question: Question, options: Sequence[str], gold: int | None, labels: Sequence[str] = ()
) -> Question:
    """`question` with shuffled, lettered options in its text; options that say the same are one.

    Args: gold: index of the right option, None for a matter of opinion. labels: one per option.
    """
    options = [option.strip() for option in options]
    order = [i for i in shuffled_order(options, question.id) if i == options.index(options[i])]
    shown = tuple(options[i] for i in order)
    return replace(
        question,
        text=lettered(question.text, shown, INSTRUCTION if gold is not None else OPINION),
        choices=shown,
        gold=() if gold is None else (options[gold],),
        choice_labels=tuple(labels[i] for i in order) if labels else (),
        verifier="multiple_choice",
    )


def lettered(text: str, options: Sequence[str], instruction: str = INSTRUCTION) -> str:
    """`text`, the options as A) ..., B) ..., and what to answer with."""
    lines = [f"{ascii_uppercase[i]}) {option}" for i, option in enumerate(options)]
    return "\n".join([text, "", *lines, "", instruction])
