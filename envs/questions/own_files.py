"""Questions of one's own, as JSONL, CSV or Parquet.

Columns: id, text, and optionally kind, source, gold, choices, verifier. In CSV a list is JSON or
separated by |. Splits are by hash of the id, so ids must be unique and stay the same. Options that
the text does not show yet are shuffled and shown.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from envs.errors import DataError
from envs.questions.choices import with_options
from envs.questions.source import Problems
from envs.types import Kind, Question
from envs.verifiers import VERIFIERS, gold_problem

_COLUMNS = ("id", "text", "gold", "choices", "kind", "source", "verifier")
_EXPECTED = (
    f"expected id and text, and optionally kind ({' | '.join(get_args(Kind))}), source, gold, "
    "choices, verifier"
)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"

Placed = Iterator[tuple[str, dict[str, Any] | str]]
"""Where a record stands, and the record or what is wrong with it."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    kind: Kind = "truth"
    source: str = ""
    gold: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    verifier: str = ""

    @field_validator("gold", "choices", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str | int | float) else value


def load_questions(path: str) -> list[Question]:
    """The questions of a JSONL, CSV or Parquet file.

    Raises: DataError that counts what is wrong and names line and reason of the first problems.
    """
    file = Path(path)
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: questions are read from {', '.join(READERS)}, by the file's end")
    if not file.is_file():
        raise DataError(f"world.questions: there is no file {path}; give a file of questions")
    problems = Problems(path)
    questions: list[Question] = []
    place_of_id: dict[str, str] = {}
    for place, raw in reader(file):
        question = raw if isinstance(raw, str) else _question(raw)
        if isinstance(question, str):
            problems.add(place, question)
        elif question.id in place_of_id:
            first = place_of_id[question.id]
            problems.add(place, f"id {question.id!r} stands in {first} already; ids must be unique")
        else:
            place_of_id[question.id] = place
            questions.append(question)
    problems.raise_if_any()
    if not questions:
        raise DataError(f"{path} holds no question; {_EXPECTED}")
    return questions


def _question(raw: dict[str, Any]) -> Question | str:
    """The question of a record, or what is wrong with it."""
    try:
        record = _Record.model_validate({k: v for k, v in raw.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the line"
        return f"{key}: {first['msg']}; {_EXPECTED}"
    verifier = record.verifier or ("multiple_choice" if record.choices else "exact")
    if verifier not in VERIFIERS:
        return f"verifier {verifier!r} is unknown; there are {', '.join(VERIFIERS)}"
    question = Question(
        id=record.id,
        text=record.text,
        kind=record.kind,
        source=record.source,
        gold=record.gold,
        choices=record.choices,
        verifier=verifier,
    )
    return gold_problem(question) or _showing_options(question)


def _showing_options(question: Question) -> Question:
    """A multiple-choice question whose text does not show its options gets them, shuffled."""
    if question.verifier != "multiple_choice" or re.search(r"(?m)^\s*\(?A[).:]\s", question.text):
        return question
    gold = question.choices.index(question.gold[0]) if question.gold else None
    shown = with_options(question, question.choices, gold)
    return replace(shown, gold=tuple(accepted.strip() for accepted in question.gold))


def _json_lines(file: Path) -> Placed:
    for number, line in enumerate(_bytes(file).split(b"\n"), start=1):
        place = f"line {number}"
        if not line.strip():
            continue
        try:
            raw = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield place, _not_utf8(error)
        except (json.JSONDecodeError, RecursionError) as error:
            yield place, f"not a JSON object: {error}"
        else:
            yield place, raw if isinstance(raw, dict) else "not a JSON object"


def _csv(file: Path) -> Placed:
    lines = _bytes(file).split(b"\n")
    undecodable = False
    for number, line in enumerate(lines, start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            undecodable = True
            yield f"line {number}", _not_utf8(error)
    if undecodable:
        return
    reader = csv.DictReader(io.StringIO(b"\n".join(lines).decode("utf-8"), newline=""), strict=True)
    missing = [c for c in ("id", "text") if c not in (reader.fieldnames or ())]
    unknown = [c for c in reader.fieldnames or () if c not in _COLUMNS]
    if missing or unknown:
        problem = f"no column {', '.join(missing)}" if missing else f"unknown column {unknown[0]!r}"
        if any(lines):
            yield "line 1", f"{problem}; {_EXPECTED}"
        return
    yield from _csv_rows(reader)


def _csv_rows(reader: csv.DictReader) -> Placed:
    """A row's place is the line on which it begins."""
    while True:
        place = f"line {reader.line_num + 1}"
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield place, f"not readable as CSV: {error}"
            return
        if None in row or None in row.values():
            yield place, f"{'more' if None in row else 'fewer'} cells than the header has"
            continue
        yield place, _with_lists({k: v for k, v in row.items() if v != ""})


def _parquet(file: Path) -> Placed:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is no readable Parquet file: {error}") from error
    missing = [c for c in ("id", "text") if c not in table.column_names]
    if missing:
        raise DataError(f"{file} has no column {', '.join(missing)}; {_EXPECTED}")
    number = 0
    for batch in table.to_batches(max_chunksize=8192):
        for row in batch.to_pylist():
            number += 1
            yield f"row {number}", _with_lists({k: v for k, v in row.items() if v is not None})


def _with_lists(row: dict[str, Any]) -> dict[str, Any] | str:
    for column in ("gold", "choices"):
        cell = row.get(column)
        if isinstance(cell, str):
            try:
                row[column] = json.loads(cell) if cell.startswith("[") else cell.split("|")
            except json.JSONDecodeError as error:
                return f"{column}: not a JSON list: {error}; use JSON, or separate by |"
            row[column] = [v.strip() if isinstance(v, str) else v for v in row[column]]
    return row


def _bytes(file: Path) -> bytes:
    content = file.read_bytes()
    if content.startswith(_UTF16):
        raise DataError(f"{file} is UTF-16; save it as UTF-8")
    return content.removeprefix(_BOM)


def _not_utf8(error: UnicodeDecodeError) -> str:
    byte = error.object[error.start]
    return f"byte {error.start + 1} of the line is 0x{byte:02x}, no UTF-8; save the file as UTF-8"


READERS = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
