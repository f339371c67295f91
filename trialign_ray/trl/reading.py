"""TRL's preference or unpaired data with a `group` column, read: who liked which answer.

Every bad line is named; nothing is left out silently. `imported_log` makes a log of it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from envs.types import Message
from trialign_ray.checkpoint import write_atomically
from trialign_ray.errors import DataError

SHOWN = 20
"""How many bad lines a message names."""
_QUESTION_COLUMNS = ("kind", "source", "gold", "choices", "verifier")


@dataclass(frozen=True)
class Liked:
    """One answer that somebody of a group was shown. liked: 1, or 0 if another was preferred or it
    was marked bad. where: line of the file. record: the whole line."""

    where: str
    question: str
    group: str
    text: str
    liked: float
    record: Mapping[str, Any]


def read_trl(path: Path) -> list[Liked]:
    """The answers of a JSONL or Parquet file, two for each pair.

    Raises: DataError naming the bad lines (rows of Parquet count from 1) and why; nothing is left
    out silently.
    """
    found: list[Liked] = []
    problems: list[str] = []
    for where, record in _records(path):
        try:
            found += _answers(where, record)
        except ValueError as error:
            problems.append(f"{path}, {where}: {error}")
    raise_all(problems)
    if not found:
        raise DataError(f"{path} holds no rows; expected TRL's preference or unpaired data")
    return found


def raise_all(problems: Sequence[str]) -> None:
    """Raises: DataError with the first problems and the number of the others, if there are any."""
    if problems:
        more = f"\nand {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError("\n".join(problems[:SHOWN]) + more)


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        if path.suffix == ".parquet":
            for number, row in enumerate(pq.read_table(path).to_pylist(), start=1):
                yield f"row {number}", row
        elif path.suffix in (".jsonl", ".json"):
            for number, line in enumerate(path.read_bytes().splitlines(), start=1):
                if line.strip():
                    yield f"line {number}", line
        else:
            raise DataError(f"{path} ends in {path.suffix!r}; expected .jsonl or .parquet")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _answers(where: str, raw: bytes | dict[str, Any]) -> list[Liked]:
    """Raises: ValueError saying what is wrong with the line."""
    record = raw if isinstance(raw, dict) else _parsed(raw)
    if not isinstance(record, dict):
        raise ValueError(f"is a {type(record).__name__}; expected an object")
    group = record.get("group")
    if not isinstance(group, str) or not group:
        raise ValueError("has no group; every row names the group that judged it")
    if "chosen" in record or "rejected" in record:
        verdicts = [("chosen", 1.0), ("rejected", 0.0)]
    elif "completion" in record:
        if not isinstance(record.get("label"), bool):
            raise ValueError(f"label is {record.get('label')!r}; expected true or false")
        verdicts = [("completion", float(record["label"]))]
    else:
        raise ValueError(
            "has neither chosen and rejected (preference) nor completion and label (unpaired)"
        )
    if record.get("prompt") is None:
        raise ValueError("has no prompt; pairs with the prompt inside the answers are not read")
    question = _question_text(record["prompt"])
    return [
        Liked(where, question, group, _answer_text(record.get(name), name), value, record)
        for name, value in verdicts
    ]


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 ({error.reason} at byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg})") from error


def _question_text(prompt: Any) -> str:
    """What the user asks. A system message is passed over: the group's own profile stands there."""
    if isinstance(prompt, str):
        if not prompt.strip():
            raise ValueError("prompt is empty")
        return prompt
    asked = [m for m in _messages(prompt, "prompt") if m["role"] != "system"]
    if len(asked) != 1 or asked[0]["role"] != "user":
        roles = ", ".join(m["role"] for m in asked) or "none"
        raise ValueError(
            f"prompt has messages of {roles}; expected one question of the user (earlier turns "
            "have no place in a log: put them into the question, or leave the row out)"
        )
    return str(asked[0]["content"])


def _answer_text(answer: Any, name: str) -> str:
    if isinstance(answer, str):
        text = answer
    else:
        messages = _messages(answer, name)
        if len(messages) != 1 or messages[0]["role"] != "assistant":
            raise ValueError(f"{name} is not one message of the assistant")
        text = str(messages[0]["content"])
    if not text.strip():
        raise ValueError(f"{name} is empty")
    return text


def _messages(value: Any, name: str) -> list[Message]:
    sound = isinstance(value, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in value
    )
    if not sound:
        raise ValueError(f"{name} is {str(value)[:40]!r}; expected text or messages")
    return value


def write_questions(answers: Sequence[Liked], path: Path) -> int:
    """Writes every question asked as a JSONL file for `world.questions`; returns their number.

    A question is subjective, that is, nothing is true of it, unless its rows have a `gold` column
    (beside it kind, source, choices, verifier, as in such a file).
    """
    asked: dict[str, dict[str, Any]] = {}
    for answer in answers:
        identity = question_id(answer)
        known = {k: answer.record[k] for k in _QUESTION_COLUMNS if answer.record.get(k)}
        kind = {"kind": "truth" if known.get("gold") else "subjective"}
        asked.setdefault(identity, {"id": identity, "text": answer.question, **kind, **known})
    lines = (json.dumps(q, ensure_ascii=False) for q in asked.values())
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
    return len(asked)


def question_id(answer: Liked) -> str:
    """The row's question_id, else a hash of the question's text, the same in every file."""
    given = answer.record.get("question_id")
    if isinstance(given, str) and given:
        return given
    digest = hashlib.sha256(folded(answer.question).encode()).hexdigest()
    return f"imported/{digest[:16]}"


def folded(text: str) -> str:
    """Text by which questions are told apart: spaces and line breaks do not count."""
    return " ".join(text.split())
