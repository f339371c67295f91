"""Checkable style: what a group's answers look like, rule by rule. A rule can be read and checked.

Greeting, closing, order and words are looked at in plain text (lower case, no punctuation); the
other rules, which `envs.style_marks` defines, in the text as it was said.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs.languages import language_of, require_known_languages
from envs.style_marks import (
    OutputFormat,
    System,
    body_of,
    casual_marks,
    has_format,
    num_sentences,
    unit_systems,
    without_answer,
)


class StyleRules(BaseModel):
    """Checkable style of a group's answers. A rule left at its default is not checked."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, serialize_by_alias=True
    )

    greeting: str | None = None
    """Words an answer begins with; "" asks for none of `other_greetings`; None: not checked."""
    closing: str | None = None
    """Words an answer ends with; "" asks for none of `other_closings`; None: not checked."""
    order: Literal["any", "answer_first", "answer_last"] = "any"
    """Where the answer stands in the body, greeting and closing taken away."""
    min_words: int = Field(default=0, ge=0)
    """Fewest words of the body. 0: not checked."""
    max_words: int = Field(default=0, ge=0)
    """Most words of the body. 0: not checked."""
    min_sentences: int = Field(default=0, ge=0)
    """Fewest sentences of the body. 0: not checked. A sentence ends at . ! ? … or 。！？ before a
    space or the end (not after "Dr.", "e.g." and the like), or at a line break."""
    max_sentences: int = Field(default=0, ge=0)
    """Most sentences of the body. 0: not checked."""
    register_: Literal["any", "formal", "casual"] = Field(default="any", alias="register")
    """Casual marks are English contractions, the slang words of `envs.style_marks.SLANG`,
    exclamation marks and emoji, greeting and closing included, the answer left out. formal: there
    is none; casual: there is at least one; any: not checked."""
    language: str | None = None
    """ISO 639-1 code, e.g. "de": what the detector py3langid finds most likely for the text without
    the answer. Not checked on less than 16 bytes of letters, too little to tell. None: never."""
    other_languages: tuple[str, ...] = ()
    """The detector chooses among these and `language` alone, which makes short texts safer. Empty:
    among all languages it knows."""
    units: System | Literal["any"] = "any"
    """Units that stand behind a number (see `envs.style_marks.UNITS`): all of them of this system.
    Not checked on a text that names no unit. The number is not looked at. any: not checked."""
    output_format: OutputFormat | Literal["any"] = "any"
    """plain: no Markdown mark and no JSON; bullets or numbered: every line is an item, after at
    most one line that ends in a colon, and numbers count up from 1; json: the whole text is one
    JSON object or array; markdown: at least one Markdown mark; single_line: no line break; any: not
    checked."""
    other_greetings: tuple[str, ...] = ()
    """Greetings of other groups, cut away before the body is looked at."""
    other_closings: tuple[str, ...] = ()
    """Closings of other groups, cut away before the body is looked at."""

    @model_validator(mode="after")
    def _can_be_kept(self) -> "StyleRules":
        for what in ("words", "sentences"):
            least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if most and least > most:
                raise ValueError(
                    f"min_{what} is {least} and max_{what} is {most}; no answer can keep both"
                )
        said = f"{self.greeting or ''} {self.closing or ''}"
        if self.register_ == "formal" and (marks := casual_marks(said)):
            raise ValueError(
                f"register is formal, but greeting or closing has {marks[0]!r}; no answer can keep "
                "both"
            )
        if self.other_languages and self.language is None:
            raise ValueError("other_languages is given without language; give both")
        require_known_languages(() if self.language is None else self._languages)
        return self

    @property
    def _languages(self) -> tuple[str, ...]:
        return (self.language or "", *self.other_languages)

    def language_of(self, text: str) -> str | None:
        """The language of `text` among those that these rules name; None: too short to tell."""
        return language_of(text, tuple(sorted(self._languages)) if self.other_languages else ())


def _plain(text: str) -> str:
    """Lower case, no punctuation, single spaces: spacing and capitals never decide a rule."""
    kept = "".join(c if c.isalnum() else " " for c in text.lower())
    return " ".join(kept.split())


def _cut(text: str, candidates: Sequence[str], at_start: bool) -> tuple[str, str]:
    """`text` without the longest of `candidates` at its start or end, and which one that was."""
    for candidate in sorted(map(_plain, candidates), key=len, reverse=True):
        if not candidate:
            continue
        if at_start and (text + " ").startswith(candidate + " "):
            return text[len(candidate) :].strip(), candidate
        if not at_start and (" " + text).endswith(" " + candidate):
            return text[: len(text) - len(candidate)].strip(), candidate
    return text, ""


def check_style(text: str, answer: str, rules: StyleRules) -> dict[str, bool]:
    """Each checked rule and whether `text`, whose parsed answer is `answer`, keeps it."""
    return _check_frame(text, answer, rules) | _check_marks(text, answer, rules)


def _check_frame(text: str, answer: str, rules: StyleRules) -> dict[str, bool]:
    body, greeting = _cut(_plain(text), (rules.greeting or "", *rules.other_greetings), True)
    body, closing = _cut(body, (rules.closing or "", *rules.other_closings), False)
    num_words, plain_answer = len(body.split()), _plain(answer)
    checked: dict[str, bool] = {}
    if rules.greeting is not None:
        checked["greeting"] = greeting == _plain(rules.greeting)
    if rules.closing is not None:
        checked["closing"] = closing == _plain(rules.closing)
    if rules.order == "answer_first":
        checked["order"] = (body + " ").startswith(plain_answer + " ")
    elif rules.order == "answer_last":
        checked["order"] = (" " + body).endswith(" " + plain_answer)
    if rules.min_words:
        checked["min_words"] = num_words >= rules.min_words
    if rules.max_words:
        checked["max_words"] = num_words <= rules.max_words
    return checked


def _check_marks(text: str, answer: str, rules: StyleRules) -> dict[str, bool]:
    checked: dict[str, bool] = {}
    if rules.min_sentences or rules.max_sentences:
        greetings = (rules.greeting or "", *rules.other_greetings)
        closings = (rules.closing or "", *rules.other_closings)
        sentences = num_sentences(body_of(text, greetings, closings))
        if rules.min_sentences:
            checked["min_sentences"] = sentences >= rules.min_sentences
        if rules.max_sentences:
            checked["max_sentences"] = sentences <= rules.max_sentences
    if rules.register_ != "any":
        casual = bool(casual_marks(without_answer(text, answer)))
        checked["register"] = casual == (rules.register_ == "casual")
    if rules.language is not None:
        language = rules.language_of(without_answer(text, answer))
        if language is not None:
            checked["language"] = language == rules.language
    if rules.units != "any" and (systems := unit_systems(text)):
        checked["units"] = systems == {rules.units}
    if rules.output_format != "any":
        checked["output_format"] = has_format(text, rules.output_format)
    return checked
