"""Answers that name an option by its letter, and the same words with another option's letter."""

import re
from collections.abc import Iterator
from string import ascii_uppercase

from envs.types import Question
from envs.verifiers import parse_answer

_SHOWN = re.compile(r"^([A-Z])\) (.+)$", re.MULTILINE)


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
    """The text with `new` for the letter `old`: wherever it stands by itself and is no article,
    then at each place alone."""
    alone = rf"(?<![\w'’])(?:{old}|{old.lower()})(?![\w'’])"
    no_word = alone + (r"(?! (?!is\b)[a-z])" if old in "AI" else "")
    yield re.sub(no_word, lambda place: _cased(new, place.group()), text)
    for place in re.finditer(alone, text):
        yield text[: place.start()] + _cased(new, place.group()) + text[place.end() :]


def _cased(letter: str, like: str) -> str:
    return letter if like.isupper() else letter.lower()
