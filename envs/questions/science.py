"""ARC-Challenge (Clark et al. 2018) and OpenBookQA (Mihaylov et al. 2018). 3 to 5 options."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from envs.questions.choices import with_options
from envs.questions.source import (
    HubSet,
    Row,
    Source,
    family_of,
    json_list,
    questions_of_rows,
)
from envs.types import Question

_INSTRUCTION_FORM = re.compile(
    r"Please choose the correct answer to the question: (?P<stem>.*?)\s*\n\n"
    r"(?P<options>Answer1: .*?)\n\nAnswer format: ",
    re.DOTALL,
)
_OPTION_MARK = re.compile(r"\s*Answer\d+: ")


def _question(name: str, index: int, stem: str, options: list[str], gold: int) -> Question:
    question = Question(
        id=f"{name}/test/{index}", text=stem.strip(), source=name, family=family_of(stem)
    )
    return with_options(question, options, gold)


def _file(name: str):
    def build(index: int, row: Row) -> Question:
        match = _INSTRUCTION_FORM.match(row["instruction"])
        if match is None:
            raise ValueError("the instruction has no question with Answer1: ... options")
        options = [o for o in _OPTION_MARK.split(match["options"]) if o]
        return _question(
            name, index, match["stem"], options, int(row["answer"].removeprefix("answer")) - 1
        )

    def read(path: Path, part: str | None) -> Iterator[Question]:
        return questions_of_rows(str(path), json_list(path), build)

    return read


def _hub(name: str, stem: str):
    def build(index: int, row: Row) -> Question:
        labels = list(row["choices"]["label"])
        options = list(row["choices"]["text"])
        return _question(name, index, row[stem], options, labels.index(row["answerKey"]))

    def read(rows: Iterable[Row], part: str | None) -> Iterator[Question]:
        return questions_of_rows(name, rows, build)

    return read


SOURCES = (
    Source(
        name="arc",
        description="ARC-Challenge, science questions with 3 to 5 options",
        licence="CC-BY-SA-4.0",
        local="arc_openbookqa/ARC-Challenge_test.json",
        from_file=_file("arc"),
        from_hub=_hub("arc", "question"),
        hub=lambda part: (HubSet("allenai/ai2_arc", "ARC-Challenge", "test"),),
    ),
    Source(
        name="openbookqa",
        description="OpenBookQA, elementary science",
        licence="Apache-2.0",
        local="arc_openbookqa/openbookqa_test.json",
        from_file=_file("openbookqa"),
        from_hub=_hub("openbookqa", "question_stem"),
        hub=lambda part: (HubSet("allenai/openbookqa", "main", "test"),),
    ),
)
