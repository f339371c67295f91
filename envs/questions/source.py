"""What a source of questions is, and how its rows become questions or named problems."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.answer_parsers.wording import folded
from envs.errors import DataError
from envs.types import Kind, Question
from envs.verifiers import gold_problem

logger = logging.getLogger(__name__)
Row = dict[str, Any]


@dataclass(frozen=True)
class HubSet:
    """One split of a data set of the Hugging Face Hub."""

    id: str
    config: str | None
    split: str


@dataclass(frozen=True)
class Source:
    """A named source of questions.

    `local` is a glob relative to the data folder. `part` of `name:part` narrows it: see `parts`.
    `from_file(path, part)` reads local files and `from_hub(rows, part)` the Hub's rows;
    `hub(part)` says where they are. `origin`: where to get the files that the Hub does not have.
    """

    name: str
    description: str
    licence: str
    local: str
    from_file: Callable[[Path, str | None], Iterator[Question]]
    from_hub: Callable[[Iterable[Row], str | None], Iterator[Question]] | None = None
    hub: Callable[[str | None], Sequence[HubSet]] = lambda part: ()
    kind: Kind = "truth"
    parts: str = ""
    origin: str = ""

    def files(self, data_dir: Path, part: str | None) -> list[Path]:
        """The local files there are, in order."""
        pattern = self.local if part is None else self.local.replace("*", part)
        return sorted(data_dir.glob(pattern))


class Problems:
    """Collects what is wrong with the rows of a file, so that all are counted, the first named."""

    def __init__(self, file: str, shown: int = 5):
        self._file, self._shown = file, shown
        self._first: list[str] = []
        self.count = 0

    def add(self, where: str, why: str) -> None:
        self.count += 1
        if self.count <= self._shown:
            self._first.append(f"{self._file}, {where}: {why}")

    def raise_if_any(self) -> None:
        """Raises: DataError with the first problems and the number of all."""
        if not self.count:
            return
        more = self.count - len(self._first)
        text = "\n".join(self._first) + (f"\nand {more} more problems" if more else "")
        raise DataError(text if self.count == 1 else f"{self.count} problems:\n{text}")


def questions_of_rows(
    file: str, rows: Iterable[Row], build: Callable[[int, Row], Question | None]
) -> Iterator[Question]:
    """`build(index, row)` of each row, without None. Raises: DataError that counts the rows which
    lack something."""
    problems, questions = Problems(file), []
    for index, row in enumerate(rows):
        try:
            questions.append(build(index, row))
        except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
            reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            problems.add(f"row {index + 1}", f"{reason}; not in the layout of this source")
    problems.raise_if_any()
    yield from (q for q in questions if q is not None)


def json_lines(file: Path) -> list[Row]:
    """The objects of a JSONL file. Raises: DataError naming the line."""
    rows, problems = [], Problems(str(file))
    for number, line in enumerate(file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            try:
                rows.append(json.loads(line.decode("utf-8")))
            except ValueError as error:
                problems.add(f"line {number}", str(error))
    problems.raise_if_any()
    return rows


def json_list(file: Path) -> list[Row]:
    """The objects of a JSON file that holds a list. Raises: DataError naming the file."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{file} is not readable JSON: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{file} holds a {type(rows).__name__}; expected a list of rows")
    return rows


def family_of(text: str) -> str:
    """The family of a question by its wording: wherever it comes from, it is in one split."""
    return "text/" + hashlib.sha256(folded(text).encode()).hexdigest()[:16]


def checked(name: str, questions: Iterable[Question]) -> list[Question]:
    """`questions` without those whose gold no verifier accepts; a warning counts them.

    Raises: DataError if an id stands twice or nothing is left.
    """
    kept: dict[str, Question] = {}
    refused: list[str] = []
    for question in questions:
        if question.id in kept:
            raise DataError(f"{name}: id {question.id!r} stands twice; the source is damaged")
        why = gold_problem(question)
        if why is None:
            kept[question.id] = question
        else:
            refused.append(f"{question.id}: {why}")
    if refused:
        logger.warning(
            "%s: %d questions left out, as their gold would never count as true; first: %s",
            name,
            len(refused),
            refused[0],
        )
    if not kept:
        raise DataError(f"{name} holds no question that can be used")
    return list(kept.values())
