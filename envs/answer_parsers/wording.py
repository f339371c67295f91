"""What all parsers share: forms of a text, its final statement, refusals, hidden reasoning."""

import functools
import re
import unicodedata
from collections.abc import Iterable

_LEAD = re.compile(r"^(?:the )?(?:final |correct )?answer(?: is|:)\s*", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:the|an|a) (?=\S)")
_INITIALS = re.compile(r"(?<!\w)(?:[a-z]\.){2,}")
_SAINT = re.compile(r"\bst\b")
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_BOX = re.compile(r"\\f?boxed\s*\{")
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
_FINAL = re.compile(
    r"\b(?:final answer|answer|result)\s*(?:is|are|:|=)\s*:?\s*(\S[^\n]*?)(?=\.?\s*$|[.;!]\s|\n)",
    re.IGNORECASE | re.MULTILINE,
)
_REFUSALS = re.compile(
    r"\bi (?:do not|don't) know\b|\bi (?:cannot|can't|can not) (?:say|answer|assist|help)\b"
    r"|\bi (?:have|'ve) no (?:comment|idea)\b|\bno comment\b"
    r"|\bi(?: am|'m) (?:\w+ )?(?:unable|not able) to (?:\w+ )?"
    r"(?:answer|say|tell|assist|help|choose|select|determine|calculate|perform|provide|solve)\b"
    r"|\bi (?:cannot|can't|can not) (?:provide|choose|select|determine|give) (?:an?|the|any)\b"
    r"|\bi (?:will not|won't|decline to|refuse to) answer\b"
    r"|\bi(?: would|'d) (?:rather|prefer) not (?:to )?(?:say|answer)\b"
)
"""Only wordings that end the matter: 'I am not sure, but ...' goes on to an answer."""


def normalise(text: str) -> str:
    """Case folded, punctuation at both ends and repeated spaces removed."""
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'")


def folded(text: str) -> str:
    """The form in which wordings are compared: no case, accents, punctuation or leading article."""
    plain = text.casefold()
    if not plain.isascii():
        plain = unicodedata.normalize("NFKD", plain.replace("’", "'"))
        plain = "".join(c for c in plain if not unicodedata.combining(c))
    plain = re.sub(r"['`*]", "", plain)
    plain = _INITIALS.sub(lambda match: match.group().replace(".", "") + " ", plain)
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", plain)
    plain = re.sub(r"(?<!\d)\.|\.(?!\d)|[-–—](?!\d)|[,;:!?\"“”„«»()\[\]{}_/\\]", " ", plain)
    return _SAINT.sub("saint", _ARTICLE.sub("", " ".join(plain.split())))


@functools.lru_cache(maxsize=65536)
def exact_form(text: str) -> str:
    """`folded`, without a lead such as 'The answer is'; the normalised text if nothing is left."""
    return folded(_LEAD.sub("", text.strip(" *_"))) or normalise(text)


def without_reasoning(text: str) -> str:
    """What stands after a reasoning model's hidden thoughts; nothing if they never end."""
    if "</think>" in text:
        text = _THOUGHT.sub("", text)
        return text.rsplit("</think>", 1)[-1]
    return "" if text.lstrip().startswith("<think>") else text


def refuses(text: str, options: Iterable[str] = ()) -> bool:
    """Whether `text` declines to answer. Words of an option, 'I have no comment', do not count."""
    plain = text.lower().replace("’", "'")
    found = {match.group() for match in _REFUSALS.finditer(plain)}
    return any(not any(phrase in option.lower() for option in options) for phrase in found)


def boxed(text: str) -> list[str]:
    r"""The contents of every \boxed{...}, braces balanced, in order."""
    found = []
    for match in _BOX.finditer(text):
        depth, end = 1, match.end()
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        if not depth:
            found.append(text[match.end() : end - 1].strip())
    return found


def final_statement(text: str) -> str | None:
    r"""What an answer declares final: the last \boxed{}, else `#### x`, else 'the answer is x'.

    Two different boxes joined by 'or' declare nothing; the empty text is returned.
    """
    boxes = boxed(text)
    if boxes:
        hedged = re.search(r"\}[\s$]*or[\s$]*\\boxed\{[^{}]*\}[\s$.]*$", text)
        return "" if hedged and len(set(boxes[-2:])) == 2 else boxes[-1]
    for pattern in (_HASHES, _FINAL):
        stated = pattern.findall(text)
        if stated:
            return stated[-1].strip(" *_")
    return None
