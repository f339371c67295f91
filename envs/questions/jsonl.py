"""Questions of one's own, as JSON lines: id, text, and optionally kind, source, gold, choices,
verifier. Splits are by hash of the id, so ids must be unique and stay the same."""

import json
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from envs.errors import DataError
from envs.types import Kind, Question
from envs.verifiers import VERIFIERS


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    kind: Kind = "truth"
    source: str = ""
    gold: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    verifier: str = "exact"


def load_questions(path: str) -> list[Question]:
    """The questions of a JSONL file. Raises: DataError naming file, line and reason."""
    file = Path(path)
    if not file.is_file():
        raise DataError(f"world.questions: there is no file {path}; give a JSONL file of questions")
    questions: list[Question] = []
    line_of_id: dict[str, int] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        question = _parse(line, f"{path}, line {number}")
        if question.id in line_of_id:
            raise DataError(
                f"{path}, line {number}: id {question.id!r} stands in line "
                f"{line_of_id[question.id]} already; ids must be unique"
            )
        line_of_id[question.id] = number
        questions.append(question)
    if not questions:
        raise DataError(f"{path} holds no question; expected one JSON object per line")
    return questions


def _parse(line: str, where: str) -> Question:
    try:
        raw: Any = json.loads(line)
        record = _Record.model_validate(raw)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not a JSON object: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the line"
        raise DataError(
            f"{where}: {key}: {first['msg']}; expected id and text, and optionally kind "
            f"({' | '.join(get_args(Kind))}), source, gold, choices, verifier"
        ) from error
    if record.verifier not in VERIFIERS:
        names = ", ".join(VERIFIERS)
        raise DataError(f"{where}: verifier {record.verifier!r} is unknown; there are {names}")
    if record.kind != "subjective" and not record.gold:
        raise DataError(f"{where}: kind {record.kind} needs gold, a list of accepted answers")
    if record.verifier in ("closed_vocabulary", "multiple_choice"):
        _check_choices(record, where)
    if record.verifier == "numeric":
        for gold in record.gold:
            _check_number(gold, where)
    return Question(**record.model_dump())


def _check_choices(record: _Record, where: str) -> None:
    if len(set(record.choices)) < 2:
        raise DataError(f"{where}: verifier {record.verifier} needs at least 2 choices")
    outside = [gold for gold in record.gold if gold not in record.choices]
    if outside:
        raise DataError(f"{where}: gold {outside[0]!r} is not among the choices")


def _check_number(gold: str, where: str) -> None:
    try:
        float(gold)
    except ValueError as error:
        raise DataError(f"{where}: gold {gold!r} is no number, as numeric needs it") from error
