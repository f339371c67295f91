"""Mathematical answers, compared by math-verify (Hugging Face): 1/2 equals 0.5.

Canonical form: a number as a fraction, words in lower case, anything else as normalised LaTeX, so
that equal answers of different groups are one answer.
"""

import functools
import re
import threading
from typing import Any

from envs.answer_parsers.wording import boxed, final_statement
from envs.types import UNPARSED, Question

TIMEOUT_S = 5
_LONGEST = 400
"""Characters of an answer. What is longer is no final answer."""
_TOWER = re.compile(r"\^\s*\{?[^{}\s]*\^|\^\s*\{?\s*-?\d{4,}|\d{4,}\s*!|!\s*!")
"""Powers and factorials that could take for ever. math-verify's own limit is a signal, which only
works in the main thread."""
_FORMULA = re.compile(r"\$+([^$]+)\$")
_WORDS = re.compile(r"\(?([A-Za-z]+(?: [A-Za-z]+)*)\)?")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mbox|textrm)\s*\{([^{}]*)\}")
_NAMED = re.compile(r"^\\?[A-Za-z](?:_\{?\w\}?)?\s*(?:=|\\in(?![a-z]))\s*(?=\S)([^=]*)$")


def math_statement(text: str, question: Question) -> str | None:
    """The declared final answer in canonical form; None if `text` declares none."""
    statement = final_statement(text)
    if statement is None:
        return None
    formula = None if boxed(text) else _FORMULA.search(statement)
    return canonical(formula.group(1) if formula else statement) or UNPARSED


def math_answer(text: str, question: Question) -> str:
    """The last expression of a text that declares nothing final."""
    return canonical(_last_expression(text)) or UNPARSED


def same_expression(answer: str, gold: str) -> bool:
    """Whether math-verify finds both equal, or their canonical forms are the same."""
    if answer == canonical(gold):
        return True
    parsed_gold, parsed = _parse(gold), _parse(answer)
    if not parsed_gold or not parsed:
        return False
    from math_verify import verify

    return verify(parsed_gold, parsed, timeout_seconds=_timeout_s(), raise_on_error=False)


@functools.lru_cache(maxsize=65536)
def canonical(latex: str) -> str:
    """The form in which answers are logged and compared; empty for nothing."""
    plain = re.sub(r"\s+", " ", latex.strip().strip("$").strip(" .,"))
    plain = re.sub(r"^\\[(\[]|\\[)\]]$", "", plain).strip()
    named = _NAMED.match(plain)
    plain = named.group(1) if named else plain
    words = _WORDS.fullmatch(_TEXT.sub(r"\1", plain).strip())
    if words:
        return words.group(1).casefold()
    return _expression(plain) or re.sub(r"\\left|\\right|\s", "", plain)


def _expression(plain: str) -> str | None:
    """A fraction for a number, LaTeX for what sympy writes and reads back as the same."""
    parsed = _parse(plain)
    if not parsed or isinstance(parsed[0], str):
        return None
    from sympy import Rational, latex

    expression = parsed[0]
    if getattr(expression, "is_Float", False):
        return str(Rational(f"{float(expression):.12g}"))
    if getattr(expression, "is_Rational", False):
        return str(expression)
    from math_verify import verify

    written = latex(expression)
    again = _parse(written)
    agrees = again and verify(parsed, again, timeout_seconds=_timeout_s(), raise_on_error=False)
    return written if agrees else None


@functools.lru_cache(maxsize=65536)
def _parse(latex: str) -> list[Any]:
    if not latex or len(latex) > _LONGEST or _TOWER.search(latex):
        return []
    from math_verify import LatexExtractionConfig, parse

    config = [LatexExtractionConfig()]
    return parse(f"${latex}$", config, parsing_timeout=_timeout_s(), raise_on_error=False)


def _last_expression(text: str) -> str:
    last = text.strip()[-_LONGEST:]
    if not last or _TOWER.search(last):
        return ""
    from math_verify import parse

    found = parse(last, parsing_timeout=_timeout_s(), raise_on_error=False)
    return str(found[-1]) if found else ""


def _timeout_s() -> int:
    """0, which is none, outside the main thread."""
    in_main = threading.current_thread() is threading.main_thread()
    return TIMEOUT_S if in_main else 0
