"""Who is asked in an audit, and what each was answered: kept as it comes, batch by batch.

`answers.jsonl` has one line per answer: who was asked for (`to`), `question`, the `text` as it was
said, whether the length limit cut it (`truncated`, null where an endpoint does not tell), and
`option`, the index of the likeliest option where likelihood answers.
"""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

from envs.groups import Group
from envs.prompts import opening_messages, question_messages
from envs.types import Judgement, Message, PromptMode, Question
from envs.verifiers import parse_answer, truth_of
from trialign_ray.errors import DataError
from trialign_ray.option_likelihood import Choice, by_likelihood

logger = logging.getLogger(__name__)
Conversation = Sequence[Message]


@dataclass(frozen=True)
class Audience:
    """For whom questions are asked: a group, a neutral control persona, or a user of whom nothing
    is said (`group` is None)."""

    kind: Literal["group", "control", "no_persona"]
    group: Group | None = None

    @property
    def name(self) -> str:
        return self.group.name if self.group else "no persona"

    @property
    def key(self) -> str:
        """Its name in answers.jsonl; a control may have the name of a group."""
        return f"{self.kind}:{self.name}"

    def messages(self, question: Question, mode: PromptMode) -> list[Message]:
        """The conversation so far. Controls have no history: their prompt is always explicit."""
        if self.group is None:
            return opening_messages(question.text, "none")
        shown: PromptMode = mode if self.kind == "group" else "explicit"
        return question_messages(question, shown, self.group)


@dataclass(frozen=True)
class Reply:
    """What was said, and whether the length limit cut it (None: nobody knows)."""

    text: str
    truncated: bool | None = None


class Respondent(Protocol):
    """A model as one audience meets it."""

    def answer(self, conversations: Sequence[Conversation]) -> list[Reply]:
        """One reply per conversation, greedy."""
        ...

    def choose(
        self, conversations: Sequence[Conversation], questions: Sequence[Question], by: str
    ) -> list[Choice]:
        """The likeliest option of every question, by `likelihood` or `letter`."""
        ...


@dataclass(frozen=True)
class Answer:
    """One line of answers.jsonl."""

    to: str
    question: str
    text: str
    truncated: bool | None = None
    option: int | None = None

    def judged(self, question: Question) -> Judgement:
        """Truth and canonical answer; one parser serves all audiences."""
        if self.option is not None:
            said = question.choices[self.option]
            return Judgement(said, truth_of(said, question), None)
        said = parse_answer(self.text, question)
        return Judgement(said, truth_of(said, question), None)


class AnswerLog:
    """answers.jsonl: read once, then only added to. A last line cut by a kill is asked again."""

    def __init__(self, path: Path):
        self._path = path
        if path.is_file():
            _drop_unfinished_line(path)
        self._answers = {(a.to, a.question): a for a in _read(path)}

    def get(self, audience: Audience, question: Question) -> Answer | None:
        return self._answers.get((audience.key, question.id))

    def missing(self, audience: Audience, questions: Iterable[Question]) -> list[Question]:
        """Questions that this audience has no answer to."""
        return [q for q in questions if (audience.key, q.id) not in self._answers]

    def add(self, answers: Sequence[Answer]) -> None:
        """Writes answers through to the disk, then knows them."""
        lines = "".join(json.dumps(asdict(a), ensure_ascii=False) + "\n" for a in answers)
        with self._path.open("ab") as file:
            file.write(lines.encode("utf-8", errors="replace"))
            file.flush()
            os.fsync(file.fileno())
        self._answers.update({(a.to, a.question): a for a in answers})


def _drop_unfinished_line(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        logger.warning("%s: its last line was cut by a kill; that question is asked again", path)
        os.truncate(path, whole)


def _read(path: Path) -> list[Answer]:
    """Raises: DataError naming the first damaged line."""
    answers = []
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            answers.append(Answer(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{path}, line {number}: {str(error)[:120]}; expected an object with to, question, "
                "text, truncated, option. Remove the line, and --resume asks that question again"
            ) from error
    return answers


def ask_batch(
    respondent: Respondent,
    audience: Audience,
    questions: Sequence[Question],
    mode: PromptMode,
    multiple_choice: str,
) -> list[Answer]:
    """Answers to `questions`, in no particular order."""
    chosen, spoken = [], []
    for question in questions:
        likeliest = multiple_choice != "generate" and by_likelihood(question)
        (chosen if likeliest else spoken).append(question)
    answers = []
    if spoken:
        replies = respondent.answer([audience.messages(q, mode) for q in spoken])
        for question, reply in zip(spoken, replies, strict=True):
            answers.append(Answer(audience.key, question.id, reply.text, reply.truncated))
    if chosen:
        prompts = [audience.messages(q, mode) for q in chosen]
        for question, choice in zip(
            chosen, respondent.choose(prompts, chosen, multiple_choice), strict=True
        ):
            key = audience.key
            answers.append(Answer(key, question.id, choice.option, None, choice.index))
    return answers
