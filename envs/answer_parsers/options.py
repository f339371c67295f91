r"""Lettered options: A) ..., B) ...

What counts, first to last: an explicit statement ("the answer is B", "\boxed{B}"); a letter at the
start, as the question asks for it; and then any letter or wording. Two that differ count as
unparsed at each step, as does a stated letter beyond the options. Negations are not understood.
"""

import functools
import re
from string import ascii_uppercase

from envs.answer_parsers.wording import boxed, folded
from envs.types import UNPARSED, Question

_LATEX = re.compile(r"\\(?:boxed|text|textbf|mathbf|mathrm)\s*\{([^{}]*)\}")
_QUOTE = r"[\s(\[\"'“‘:]*"
_END = r"(?=\s*(?:[.,;:!?)\]\"'”’}]|$|\n))"
_LINK = (
    r"(?:\s+(?:to (?:the|this) question|would be|should be|must be|is|option|choice|letter)\b|:|=)"
)
_STATED = re.compile(
    rf"\b(?:(?i:answer|(?:i|i'd|i would|i'll) (?:choose|pick|select|go with|say))"
    rf"|(?i:correct|right|best) (?i:option|choice|letter)){_LINK}*{_QUOTE}"
    rf"(?:([A-Z])(?![\w'’])|([a-z]){_END})"
)
_CALLED_RIGHT = re.compile(
    r"(?<![\w'’])([A-Z])[)\]]?\s+is\s+(?:the\s+)?(?:correct|right|best)(?:\s+(?:answer|option|choice))?\b"
)
_LEADING = re.compile(r"^[\s(\[\"']*(?:([A-Z])(?:\s*[).:\]]|\s*$|\s+[-–—]\s|\n)|([a-z])\s*[)\]])")
_ALONE = re.compile(r"^\W*([A-Za-z])\W*$")
_HEDGE = re.compile(r"\b(?:or|and|maybe|perhaps|possibly)\b[\s(]*([A-Z])(?=\s*(?:[).:,\]]|$))")
_MENTIONED = re.compile(r"\(([A-Z])\)|(?:^|\s)([A-Z])[.):]|\b(?i:option|choice) ([A-Z])(?!\w)")


def stated_option(text: str, question: Question) -> str | None:
    """The option that `text` commits itself to by letter, `unparsed` if to none there is or to
    two; None if it commits itself to nothing."""
    plain = _plain(text)
    letters = _stated_letters(text, plain, question)
    if not letters:
        return None
    if len(letters) > 1 or ascii_uppercase.index(min(letters)) >= len(question.choices):
        return UNPARSED
    return question.choices[ascii_uppercase.index(letters.pop())]


def any_option(text: str, question: Question) -> str:
    """The one option mentioned by letter or by its wording."""
    plain = _plain(text)
    mentioned = {ascii_uppercase.index(x) for m in _MENTIONED.findall(plain) for x in m if x}
    found = {question.choices[i] for i in mentioned if i < len(question.choices)}
    found |= worded_options(plain, question.choices)
    return found.pop() if len(found) == 1 else UNPARSED


def worded_options(text: str, choices: tuple[str, ...]) -> set[str]:
    """The options whose wording stands in `text`; the longest wins at a place."""
    choice_by_form, pattern = _wordings(choices)
    return {choice_by_form[form] for form in pattern.findall(folded(text))}


def _plain(text: str) -> str:
    text = re.sub(r"[*`$]|(?<!\w)_+|_+(?!\w)", "", text)
    return _LATEX.sub(r"\1", _LATEX.sub(r"\1", text)).strip()


def _stated_letters(text: str, plain: str, question: Question) -> set[str]:
    alone = _ALONE.match(plain)
    if alone:
        return {alone.group(1).upper()}
    boxes = [match.group(1).upper() for b in boxed(text) if (match := _ALONE.match(_plain(b)))]
    if boxes:
        return {boxes[-1]}
    explicit = _explicit_letters(plain, question)
    return explicit or _leading_letters(plain, question)


def _explicit_letters(plain: str, question: Question) -> set[str]:
    letters = {match.group(1) for match in _CALLED_RIGHT.finditer(plain)}
    for match in _STATED.finditer(plain):
        letter = (match.group(1) or match.group(2)).upper()
        rest = plain[match.start(match.lastindex or 0) :]
        if not _is_article(letter, rest, question.choices):
            letters.add(letter)
            letters |= _hedges(_first_line(rest), question.choices)
    return letters


def _leading_letters(plain: str, question: Question) -> set[str]:
    match = _LEADING.match(plain)
    if match is None:
        return _letter_and_wording(plain, question.choices)
    letter = (match.group(1) or match.group(2)).upper()
    line = _first_line(plain[match.end() :])
    named = {
        ascii_uppercase[i] for i, c in enumerate(question.choices) if folded(line) == folded(c)
    }
    if named:
        return {letter} if letter in named else {letter, *named}
    return {letter} | _hedges(line, question.choices)


def _letter_and_wording(plain: str, choices: tuple[str, ...]) -> set[str]:
    """'B Paris': a letter without any mark counts only before its own option's wording."""
    letter, _, rest = plain.partition(" ")
    if len(letter) != 1 or letter not in ascii_uppercase[: len(choices)]:
        return set()
    return {letter} if folded(rest) == folded(choices[ascii_uppercase.index(letter)]) else set()


def _is_article(letter: str, rest: str, choices: tuple[str, ...]) -> bool:
    """Whether the A or I is a word of an option, as in 'the answer is A penny dropped'."""
    if letter not in "AI" or not re.match(r"\w \w", rest):
        return False
    start = folded(rest)
    return any(len(folded(c)) > 1 and start.startswith(folded(c)) for c in choices)


def _hedges(line: str, choices: tuple[str, ...]) -> set[str]:
    """Letters of other options that a statement goes on to: 'B, or C.'"""
    return set(_HEDGE.findall(line)) & set(ascii_uppercase[: len(choices)])


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0]


@functools.lru_cache(maxsize=4096)
def _wordings(choices: tuple[str, ...]) -> tuple[dict[str, str], re.Pattern[str]]:
    choice_by_form = {form: c for c in choices if (form := folded(c))}
    longest_first = sorted(choice_by_form, key=len, reverse=True)
    either = "|".join(map(re.escape, longest_first)) or r"(?!)"
    return choice_by_form, re.compile(rf"(?<![\w.])(?<!\d-)(?:{either})(?!\w)(?![.,]\d)")
