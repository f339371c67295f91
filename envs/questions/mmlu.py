"""MMLU (Hendrycks et al. 2021, arXiv 2009.03300): exam questions of 57 subjects."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from envs.questions.choices import with_options
from envs.questions.source import HubSet, Row, Source, family_of, questions_of_rows
from envs.types import Question


def _question(subject: str, index: int, text: str, choices: list[str], gold: int) -> Question:
    question = Question(
        id=f"mmlu/{subject}/test/{index}",
        text=text.strip(),
        source=f"mmlu/{subject}",
        family=family_of(text + "\n".join(sorted(choices))),
    )
    return with_options(question, choices, gold)


def _from_file(path: Path, part: str | None) -> Iterator[Question]:
    subject = path.name.removesuffix("_test.csv")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))

    def build(index: int, row: Row) -> Question:
        choices = [row[f"choice{i}"] for i in range(4)]
        return _question(subject, index, row["question"], choices, int(row["answer"]))

    return questions_of_rows(str(path), rows, build)


def _from_hub(rows: Iterable[Row], part: str | None) -> Iterator[Question]:
    seen: Counter[str] = Counter()

    def build(_: int, row: Row) -> Question:
        subject = row["subject"]
        seen[subject] += 1
        answer = row["answer"]
        gold = "ABCD".index(answer) if isinstance(answer, str) else answer
        return _question(subject, seen[subject] - 1, row["question"], list(row["choices"]), gold)

    return questions_of_rows("cais/mmlu", rows, build)


SOURCES = (
    Source(
        name="mmlu",
        description="MMLU, four-option exam questions of 57 subjects",
        licence="MIT",
        local="mmlu/*_test.csv",
        from_file=_from_file,
        from_hub=_from_hub,
        hub=lambda part: (HubSet("cais/mmlu", part or "all", "test"),),
        parts="subject, as world_religions",
    ),
)
