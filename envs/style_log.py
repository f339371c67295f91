"""Logged answers from which a style is learned: JSONL, CSV or Parquet, read row by row."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import DataError

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True)
class LoggedText:
    """What somebody said to a member of `group`, and whether that member liked it.

    `question` and `answer` (the bare answer inside the text) are "" where the log has none.
    """

    group: str
    text: str
    liked: bool = True
    question: str = ""
    answer: str = ""


def read_style_log(path: Path) -> list[LoggedText]:
    """The rows of a log: group and text (optionally question, answer, liked), or TRL's unpaired
    schema with prompt, completion, label and group; prompts may be text or chat messages.

    Raises: DataError, naming file, row, value and what was expected.
    """
    if not path.is_file():
        raise DataError(f"style log {path} does not exist; give a JSONL, CSV or Parquet file")
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise DataError(f"style log {path} ends in {path.suffix!r}; expected {', '.join(readers)}")
    rows = [_parse(row, where) for where, row in readers[path.suffix.lower()](path)]
    if not rows:
        raise DataError(f"style log {path} has no rows; expected columns group and text")
    return rows


def _jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                row = json.loads(line) if line else None
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not a line of UTF-8 JSON ({error})") from error
            if row is None and not line:
                continue
            if not isinstance(row, dict):
                raise DataError(f"{where}: a {type(row).__name__}, not a JSON object with columns")
            yield where, row


def _csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                yield f"{path}:{reader.line_num}", {k: v for k, v in row.items() if k}
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"style log {path} is not readable UTF-8 CSV: {error}") from error


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"style log {path} is not readable Parquet: {error}") from error
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))


def _parse(row: dict[str, Any], where: str) -> LoggedText:
    unpaired = "completion" in row
    group, text = row.get("group"), row.get("completion" if unpaired else "text")
    liked = row.get("label" if unpaired else "liked", None if unpaired else True)
    if not isinstance(group, str) or not group or text is None or liked is None:
        raise DataError(
            f"{where}: columns {', '.join(map(str, row)) or 'none'} with group {group!r}; expected "
            "group and text, or prompt, completion, label and group, none of them empty"
        )
    return LoggedText(
        group=group,
        text=_content(text, where),
        liked=_truth_value(liked, where),
        question=_content(row.get("prompt" if unpaired else "question") or "", where),
        answer=_content(row.get("answer") or "", where),
    )


def _content(value: Any, where: str) -> str:
    """Text as it is, chat messages by their contents."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(
        isinstance(m, dict) and isinstance(m.get("content"), str) for m in value
    ):
        return "\n".join(m["content"] for m in value)
    raise DataError(
        f"{where}: {str(value)[:80]!r} is a {type(value).__name__}; expected text, or a list of "
        "messages with role and content"
    )


def _truth_value(value: Any, where: str) -> bool:
    word = str(value).strip().lower()
    if word not in (*_TRUE, *_FALSE):
        raise DataError(f"{where}: label {value!r}; expected true or false")
    return word in _TRUE
