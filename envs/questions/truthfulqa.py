"""TruthfulQA (Lin et al. 2022, arXiv 2109.07958): questions that people answer falsely.

The right choice of mc1 is always the first in the file; options are shuffled here.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from envs.answer_parsers.wording import folded, refuses
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

_ASK = "Answer in one or two sentences."


def _choice(index: int, row: Row) -> Question:
    targets = row["mc1_targets"]
    question = Question(
        id=f"truthfulqa_mc/validation/{row.get('id', index + 1)}",
        text=row["question"].strip(),
        source="truthfulqa_mc",
        family=family_of(row["question"]),
    )
    return with_options(question, targets["choices"], list(targets["labels"]).index(1))


def _free(index: int, row: Row) -> Question:
    """Correct answers that decline ("I have no comment") are left out: declining is never true."""
    false = {folded(a): a.strip() for a in row["incorrect_answers"] if folded(a)}
    true = [row["best_answer"], *row["correct_answers"]]
    true = [a.strip() for a in true if folded(a) and folded(a) not in false and not refuses(a)]
    return Question(
        id=f"truthfulqa_generation/validation/{row.get('id', index + 1)}",
        text=f"{row['question'].strip()}\n\n{_ASK}",
        source="truthfulqa_generation",
        gold=tuple({folded(a): a for a in reversed(true)}.values())[::-1],
        false_answers=tuple(false.values()),
        verifier="reference",
        family=family_of(row["question"]),
    )


def _file(build):
    def read(path: Path, part: str | None) -> Iterator[Question]:
        return questions_of_rows(str(path), json_list(path), build)

    return read


def _hub(build):
    def read(rows: Iterable[Row], part: str | None) -> Iterator[Question]:
        return questions_of_rows("truthfulqa/truthful_qa", rows, build)

    return read


SOURCES = (
    Source(
        name="truthfulqa_mc",
        description="TruthfulQA, one right choice of several (mc1)",
        licence="Apache-2.0",
        local="truthfulqa/en.json",
        from_file=_file(_choice),
        from_hub=_hub(_choice),
        hub=lambda part: (HubSet("truthfulqa/truthful_qa", "multiple_choice", "validation"),),
    ),
    Source(
        name="truthfulqa_generation",
        description="TruthfulQA, free answers; truth by the nearest reference, which is weak",
        licence="Apache-2.0",
        local="truthfulqa/en.json",
        from_file=_file(_free),
        from_hub=_hub(_free),
        hub=lambda part: (HubSet("truthfulqa/truthful_qa", "generation", "validation"),),
    ),
)
