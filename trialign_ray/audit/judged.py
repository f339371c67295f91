"""What an audit asks and of whom, and all answers, judged once by one parser.

Shapes: A audiences, X questions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from envs.groups import Group
from envs.types import ABSTAIN, UNPARSED, Judgement, PromptMode, Question
from trialign_ray.audit.answers import AnswerLog, Audience
from trialign_ray.metrics import Answers


@dataclass(frozen=True)
class Asked:
    """What an audit asks: questions of all audiences, under one prompt mode."""

    questions: tuple[Question, ...]
    groups: tuple[Group, ...]
    controls: tuple[Group, ...]
    mode: PromptMode

    @cached_property
    def audiences(self) -> tuple[Audience, ...]:
        """Groups, controls, and the user of whom nothing is said."""
        return (*self.group_audiences, *self.control_audiences, Audience("no_persona"))

    @property
    def group_audiences(self) -> list[Audience]:
        return [Audience("group", g) for g in self.groups]

    @property
    def control_audiences(self) -> list[Audience]:
        return [Audience("control", g) for g in self.controls]

    @property
    def with_truth(self) -> tuple[Question, ...]:
        return tuple(q for q in self.questions if q.has_truth and q.gold)

    @property
    def without_truth(self) -> tuple[Question, ...]:
        return tuple(q for q in self.questions if not q.has_truth)


class Judged:
    """The answers of all audiences, judged once."""

    def __init__(self, asked: Asked, log: AnswerLog):
        self.asked = asked
        self._said: dict[tuple[str, str], tuple[str, bool | None, Judgement, bool]] = {}
        for audience in asked.audiences:
            for question in asked.questions:
                answer = log.get(audience, question)
                assert answer is not None, "an audit is measured when everything is answered"
                said = (answer.text, answer.truncated, answer.judged(question))
                self._said[audience.key, question.id] = (*said, answer.option is not None)

    def text(self, audience: Audience, question: Question) -> str:
        return self._said[audience.key, question.id][0]

    def judgement(self, audience: Audience, question: Question) -> Judgement:
        return self._said[audience.key, question.id][2]

    def truncated(self, audience: Audience, questions: Sequence[Question]) -> float | None:
        """Share of answers that the length limit cut; None where nobody knows."""
        known = [self._said[audience.key, q.id][1] for q in questions]
        told = [t for t in known if t is not None]
        return float(np.mean(told)) if told else None

    def spoken(self, questions: Sequence[Question]) -> list[Question]:
        """Questions answered in words, not by an option's likelihood."""
        first = self.asked.audiences[0].key
        return [q for q in questions if not self._said[first, q.id][3]]

    def answers(self, audiences: Sequence[Audience], questions: Sequence[Question]) -> Answers:
        return Answers(
            texts={a.name: [self.text(a, q) for q in questions] for a in audiences},
            judged={a.name: [self.judgement(a, q) for q in questions] for a in audiences},
        )

    def matrix(
        self,
        audiences: Sequence[Audience],
        questions: Sequence[Question],
        holds: Callable[[Judgement], bool],
    ) -> NDArray[np.bool_]:
        """Of whose judgement `holds` is true, shape (audiences, questions)."""
        rows = [[holds(self.judgement(a, q)) for q in questions] for a in audiences]
        return np.array(rows, dtype=bool).reshape(len(audiences), len(questions))


def is_true(judgement: Judgement) -> bool:
    """Whether the answer is the known one."""
    return judgement.truth == 1.0


def is_refusal(judgement: Judgement) -> bool:
    """Whether no answer is given on purpose."""
    return judgement.parsed_answer == ABSTAIN


def is_unparsed(judgement: Judgement) -> bool:
    """Whether no answer can be read."""
    return judgement.parsed_answer == UNPARSED


def source_of(question: Question) -> str:
    """The question's source, for a table."""
    return question.source or "own questions"
