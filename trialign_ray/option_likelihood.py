"""Multiple choice by likelihood: the answer is the option that the model finds likeliest.

Nothing has to be read out of what the model says, so groups that are answered in another style are
not misread. `likelihood` scores the wording of every option, with its letter where the question
shows one, per token, the end token included: the sum alone would favour short options. `letter`
scores A, B, C ... as whole answers; it needs a tokenizer that keeps a letter as one token, and
questions that show their options with letters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from envs.types import Judgement, Question
from envs.verifiers import truth_of
from trialign_ray.engines import CandidateScore
from trialign_ray.errors import ConfigError, DataError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTER_TOKENS = 2
"""A letter as an answer: itself and the end token."""
Scorer = Callable[[Sequence[str], Sequence[Sequence[str]]], list[list[CandidateScore]]]
"""`Engine.score`, under one model and adapter: prompts and candidates to scores."""


@dataclass(frozen=True)
class Choice:
    """The likeliest option, its index, and every option's log-probability per token."""

    option: str
    index: int
    logprob_per_token: tuple[float, ...]

    def judged(self, question: Question) -> Judgement:
        """The judgement of this choice: compared with the gold as it is, nothing is parsed."""
        return Judgement(self.option, truth_of(self.option, question), None)


def by_likelihood(question: Question) -> bool:
    """Whether likelihood can answer it: a multiple-choice question with its options at hand."""
    return question.verifier == "multiple_choice" and len(question.choices) >= 2


def choose_options(
    score: Scorer, prompts: Sequence[str], questions: Sequence[Question], by: str = "likelihood"
) -> list[Choice]:
    """The likeliest option of every question after its prompt.

    Args: by: "likelihood" (wording, per token) or "letter". Raises: as `likeliest_options`.
    """
    return likeliest_options(questions, score(prompts, options_to_score(questions, by)), by)


def options_to_score(questions: Sequence[Question], by: str) -> list[list[str]]:
    """What is scored of every question. Raises: DataError if it has more options than there are
    letters."""
    return [_letters(q) if by == "letter" else _worded(q) for q in questions]


def likeliest_options(
    questions: Sequence[Question], scores: Sequence[Sequence[CandidateScore]], by: str
) -> list[Choice]:
    """The likeliest option of every question by the scores of all its options; of equals the first.

    Raises: ConfigError if letters are asked for and the tokenizer splits or confuses them.
    """
    choices = []
    for question, own in zip(questions, scores, strict=True):
        if by == "letter":
            _require_letters(own)
        per_token = tuple(s.logprob / s.num_tokens for s in own)
        index = max(range(len(per_token)), key=per_token.__getitem__)
        choices.append(Choice(question.choices[index], index, per_token))
    return choices


def _worded(question: Question) -> list[str]:
    """Every option as the question wants it said: "B) Paris" where its text shows it so."""
    lettered = [f"{a}) {c}" for a, c in zip(LETTERS, question.choices, strict=False)]
    shown = len(lettered) == len(question.choices) and all(o in question.text for o in lettered)
    return lettered if shown else list(question.choices)


def _letters(question: Question) -> list[str]:
    if len(question.choices) > len(LETTERS):
        raise DataError(
            f"question {question.id!r} has {len(question.choices)} options, letters go up to "
            f"{len(LETTERS)}; set evaluate.multiple_choice=likelihood"
        )
    return list(LETTERS[: len(question.choices)])


def _require_letters(scores: Sequence[CandidateScore]) -> None:
    for letter, score in zip(LETTERS, scores, strict=False):
        if score.num_tokens != LETTER_TOKENS:
            raise ConfigError(
                f"the tokenizer splits option letter {letter!r} into {score.num_tokens - 1} "
                "tokens; letters can be compared only where each is one token: set "
                "evaluate.multiple_choice to likelihood or generate"
            )
    if len({score.logprob for score in scores}) == 1:
        raise ConfigError(
            "the tokenizer reads all option letters as the same token (unknown to it, it seems); "
            "set evaluate.multiple_choice to likelihood or generate"
        )
