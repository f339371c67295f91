"""Text distortion: an answer without its content, so that a classifier sees style alone.

Source: Stamatatos 2017 (https://aclanthology.org/E17-1107), who masks what is rare and keeps
frequent words and punctuation. We also mask the answer, the options, the question's words and every
number, and write one mark for a run of masked words: neither which answer was given nor its length
shows.
"""

import functools
import re
from collections.abc import Collection, Iterable, Sequence

from envs.style_marks import without_answer

MASK = "\u25a1"
_NUMBER = re.compile(r"[-+\u2212]?\d+(?:[.,:/]\d+)*\s?%?")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_RUN = re.compile(rf"{MASK}(?:[\s-]*{MASK})+")
_ARTICLE = re.compile(rf"\b([Aa])n?(?= {MASK})")


def masked(
    text: str,
    answer: str = "",
    question: str = "",
    choices: Sequence[str] = (),
    kept: Collection[str] | None = None,
) -> str:
    """`text` with a mark instead of all that tells which answer it gives.

    Args: answer: the parsed answer. choices: the question's options; their letters are masked too.
    kept: lower-case words that stay; None: all that nothing else masks.
    """
    if choices:
        text = _options(tuple(choices)).sub(MASK, text)
    text = without_answer(text, answer, MASK)
    text = _NUMBER.sub(MASK, text)
    asked = {word.lower() for word in _WORD.findall(question)} - FUNCTION_WORDS

    def keep(match: re.Match[str]) -> str:
        word = match.group().lower()
        hidden = word in asked or (kept is not None and word not in kept)
        return MASK if hidden else match.group()

    text = _WORD.sub(keep, text)
    return _ARTICLE.sub(r"\1", _RUN.sub(MASK, text))


@functools.lru_cache(maxsize=4096)
def _options(choices: tuple[str, ...]) -> re.Pattern[str]:
    """The options, the longest first, in whatever case, and the letters that stand for them."""
    worded = [r"\s+".join(map(re.escape, c.split())) for c in choices if c.strip()]
    worded.sort(key=len, reverse=True)
    last = chr(ord("A") + min(len(choices), 26) - 1)
    return re.compile(
        rf"(?<!\w)(?i:{'|'.join(worded)})(?!\w)|\([A-{last}]\)|(?<!\w)[A-{last}](?=[).:]|\s*$)"
    )


def frequent_words(texts: Iterable[str], least: int) -> frozenset[str]:
    """The words, in lower case, that occur in at least `least` of the texts."""
    counts: dict[str, int] = {}
    for text in texts:
        for word in {w.lower() for w in _WORD.findall(text)}:
            counts[word] = counts.get(word, 0) + 1
    return frozenset(word for word, count in counts.items() if count >= least)


_FUNCTION_WORDS = (
    "a an the and or but if of in on at by for from to with as is are was were be been am do does "
    "did has have had will would can could may might must shall should not no yes i you he she it "
    "we they me him her us them my your his its our their this that these those there here who "
    "what which when where why how so than then too very just"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Words of the question that stay: they say how one speaks, not what of."""
