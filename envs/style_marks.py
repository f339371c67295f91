"""What the rules of style look for in a text: casual marks, units, formats, sentences.

Every list stands here in full, so that a reader can say what a rule will find.
"""

import json
import re
from collections.abc import Sequence
from typing import Literal

from envs.types import ABSTAIN, UNPARSED

System = Literal["metric", "imperial"]
OutputFormat = Literal["plain", "bullets", "numbered", "json", "markdown", "single_line"]

_SLANG_WORDS = (
    "ain't, awesome, bro, btw, bucks, chill, cheers, cos, cuz, dude, dunno, fyi, gimme, gonna, "
    "gotta, guys, haha, hey, hiya, imo, kinda, lemme, lol, nah, no worries, nope, omg, oops, phew, "
    "sorta, super cool, tbh, thx, totally, wanna, wow, y'all, ya, yeah, yep, yo, yup"
)
SLANG = tuple(_SLANG_WORDS.split(", "))
"""Words that make an English text casual."""

_CONTRACTION = re.compile(
    r"\b(?:\w+n't|\w+'(?:re|ve|ll|m|d)|(?:it|that|there|here|he|she|what|who|where|how|let)'s)\b",
    re.IGNORECASE,
)
_SLANG = re.compile(rf"(?<![\w'])(?:{'|'.join(map(re.escape, SLANG))})(?![\w'])", re.IGNORECASE)
_EXCLAMATION = re.compile("[!\u00a1\uff01]")
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]|[:;]-?[)(DP](?!\\w)")

_METRIC = (
    "mm, cm, km, m, kg, g, mg, t, ml, cl, l, km/h, kph, °C, celsius, degrees celsius, "
    "millimet(?:er|re)s?, centimet(?:er|re)s?, kilomet(?:er|re)s?, met(?:er|re)s?, grams?, "
    "kilograms?, kilos?, milligrams?, tonnes?, lit(?:er|re)s?, millilit(?:er|re)s?, hectares?"
)
_IMPERIAL = (
    "in, ft, yd, mi, lb, lbs, oz, mph, °F, fahrenheit, degrees fahrenheit, inch(?:es)?, foot, "
    "feet, yards?, miles?, pounds?, ounces?, stones?, gallons?, pints?, quarts?, acres?"
)
UNITS: dict[System, tuple[str, ...]] = {
    "metric": tuple(_METRIC.split(", ")),
    "imperial": tuple(_IMPERIAL.split(", ")),
}
"""Regular expressions of units, by system. "in" and "m" count behind digits alone."""

_WORDED = "one|two|three|four|five|six|seven|eight|nine|ten|hundred|thousand|million|half|an|a"
_MARKDOWN = re.compile(
    r"^ {0,3}#{1,6} \S|^[ \t]*[-*+•] \S|^[ \t]*\d+[.)] \S|\*\*\S|(?<!\w)__\S|`[^`\n]+`|^> \S|"
    r"^[ \t]*\|[^|\n]+\||\[[^\[\]\n]{1,200}\]\([^()\n]{1,500}\)",
    re.MULTILINE,
)
_BULLET = re.compile(r"\s*[-*+•] \S")
_ITEM = re.compile(r"\s*(\d+)[.)] \S")
_ABBREVIATION_WORDS = "mr mrs ms dr prof st vs etc e.g i.e approx no fig u.s u.k jr sr"
_ABBREVIATIONS = frozenset(_ABBREVIATION_WORDS.split())
_SENTENCE_END = re.compile(r"(?:[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？]+|\n)")


def without_answer(text: str, answer: str, instead: str = " ") -> str:
    """`text` with `instead` at every place of the parsed `answer`, in whatever case."""
    if not answer.strip() or answer in (ABSTAIN, UNPARSED):
        return text
    words = r"\s+".join(map(re.escape, answer.split()))
    return re.sub(rf"(?<!\w){words}(?!\w)", lambda _: instead, text, flags=re.IGNORECASE)


def casual_marks(text: str) -> list[str]:
    """The contractions, slang words, exclamation marks and emoji of a text."""
    straight = text.replace("’", "'")
    patterns = (_CONTRACTION, _SLANG, _EXCLAMATION, _EMOJI)
    return [match.group() for p in patterns for match in p.finditer(straight)]


def unit_systems(text: str) -> set[System]:
    """The systems whose units stand behind a number, in digits or in words."""
    return {system for system, pattern in _UNIT_PATTERNS.items() if pattern.search(text)}


def _unit_pattern(units: Sequence[str]) -> re.Pattern[str]:
    """A unit behind digits; a unit of more than three letters also behind a number in words."""
    any_unit, long_units = "|".join(units), "|".join(u for u in units if len(u) > 3)
    return re.compile(
        rf"\d\s*-?\s*(?:{any_unit})(?![\w/])|(?<!\w)(?:{_WORDED})[\s-](?:{long_units})(?!\w)",
        re.IGNORECASE,
    )


_UNIT_PATTERNS: dict[System, re.Pattern[str]] = {
    system: _unit_pattern(units) for system, units in UNITS.items()
}


def body_of(text: str, greetings: Sequence[str], closings: Sequence[str]) -> str:
    """`text` without the longest greeting and closing of those given, punctuation as it was."""
    for candidates, frame in ((greetings, r"^\W*{}[\W_]*"), (closings, r"{}\W*$")):
        for candidate in sorted(candidates, key=len, reverse=True):
            words = re.findall(r"[^\W_]+", candidate)
            if not words:
                continue
            phrase = r"(?<!\w)" + r"[\W_]+".join(map(re.escape, words)) + r"(?!\w)"
            cut, times = re.subn(frame.format(phrase), "", text, count=1, flags=re.IGNORECASE)
            if times:
                text = cut
                break
    return text


def num_sentences(text: str) -> int:
    """How many sentences a text has; abbreviations and decimal points end none."""
    count, start = 0, 0
    for match in _SENTENCE_END.finditer(text):
        before = text[start : match.start()]
        last_word = before.split()[-1].lower().strip("(\"'") if before.split() else ""
        if match.group().startswith(".") and last_word in _ABBREVIATIONS:
            continue
        count += any(c.isalnum() for c in before)
        start = match.end()
    return count + any(c.isalnum() for c in text[start:])


def has_format(text: str, wanted: OutputFormat) -> bool:
    """Whether a text has the format, as `StyleRules.output_format` defines it."""
    stripped = text.strip()
    if wanted == "single_line":
        return "\n" not in stripped and bool(stripped)
    if wanted == "json":
        return _is_json(stripped)
    if wanted == "markdown":
        return _MARKDOWN.search(stripped) is not None
    if wanted == "plain":
        return _MARKDOWN.search(stripped) is None and not _is_json(stripped)
    return _is_list(stripped, wanted == "numbered")


def _is_list(text: str, numbered: bool) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].rstrip().endswith(":"):
        lines = lines[1:]
    if not numbered:
        return bool(lines) and all(_BULLET.match(line) for line in lines)
    matches = [_ITEM.match(line) for line in lines]
    numbers = [int(match.group(1)) for match in matches if match and len(match.group(1)) < 6]
    return bool(lines) and numbers == list(range(1, len(lines) + 1))


def _is_json(text: str) -> bool:
    if not text.startswith(("{", "[")):
        return False
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
