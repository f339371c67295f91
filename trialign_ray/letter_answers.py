"""Answers that name an option by its letter, and the same words with another option's letter."""

import re
from collections.abc import Iterator
from string import ascii_uppercase

from envs.types import Question
from envs.verifiers import parse_answer

_SHOWN = re.compile(r"^([A-Z])\) (.+)$", re.MULTILINE)
_AS_A_NAME = r"(?i:(?<![^\n(*\"])|(?<=: )|(?<=\bis )|(?<=\boption )|(?<=\bchoice )|(?<=\bletter ))"
"""What stands before the letter of an option: nothing, a bracket, a colon, or such a word."""


def shown_options(asked: str) -> tuple[str, ...]:
    """The options of a question as they stand in its text or in the prompt around it, A) to Z) each
    on a line of its own; of several lists the last. Empty if it shows none."""
    options: list[str] = []
    for letter, option in _SHOWN.findall(asked):
        if letter == "A":
            options = []
        if letter == ascii_uppercase[len(options) % len(ascii_uppercase)]:
            options.append(option.strip())
    return tuple(options)


def with_letter_of(
    text: str, said: str, answer: str, options: tuple[str, ...], reworded: str | None
) -> str | None:
    """`text`, which says the option `said` by its letter, with the letter of `answer` in its place;
    None if no change of letters makes it say `answer`.

    Args: reworded: the text with the wording of `answer` for that of `said`, None where it has no
        wording; it is the result if it says `answer` as it is.
    """
    if said not in options or answer not in options:
        return None
    old, new = (ascii_uppercase[options.index(option)] for option in (said, answer))
    asked = Question("", "", choices=options, verifier="multiple_choice")
    tried = [reworded] if reworded is not None else []
    tried += _relettered(reworded or text, old, new)
    return next((t for t in tried if parse_answer(t, asked) == answer), None)


def _relettered(text: str, old: str, new: str) -> Iterator[str]:
    """The text with `new` for the letter `old`: wherever it stands as the name of an option; at one
    place where it stands by itself, place after place; wherever it does and is no article. In this
    order, since a letter by itself may have nothing to do with the option ("vitamin C")."""
    alone = rf"(?<![\w'’.])(?:{old}|{old.lower()})(?![\w'’]|\.\w)"
    no_word = alone + (r"(?! (?!is\b)[a-z])" if old in "AI" else "")

    def everywhere(pattern: str) -> str:
        return re.sub(pattern, lambda place: _cased(new, place.group()), text)

    yield everywhere(_AS_A_NAME + no_word)
    for place in re.finditer(alone, text):
        yield text[: place.start()] + _cased(new, place.group()) + text[place.end() :]
    yield everywhere(no_word)


def _cased(letter: str, like: str) -> str:
    return letter if like.isupper() else letter.lower()
