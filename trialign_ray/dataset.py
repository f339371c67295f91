"""Stage 2, the log: one Parquet row per joint turn, lists aligned with the row's groups.

The file's metadata carry the schema version and the hash of the content. A missing reward is null.
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from envs.groups import GROUP_NAME
from envs.types import Kind
from trialign_ray.errors import DataError

SCHEMA_VERSION = 1
VERSION_KEY, HASH_KEY = b"trialign.schema_version", b"trialign.content_sha256"
_STRINGS = pa.list_(pa.string())
_FLOATS = pa.list_(pa.float64())

SCHEMA = pa.schema(
    [
        ("episode_id", pa.string()),
        ("turn", pa.int32()),
        ("question_id", pa.string()),
        ("kind", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("gold_visible", pa.bool_()),
        ("group_ids", _STRINGS),
        ("present", pa.list_(pa.bool_())),
        ("prompt_text", _STRINGS),
        ("action_text", _STRINGS),
        ("action_token_ids", pa.list_(pa.list_(pa.int32()))),
        ("behaviour_logprob", _FLOATS),
        ("parsed_answer", _STRINGS),
        ("r_truth", _FLOATS),
        ("r_pers", _FLOATS),
        ("terminated", pa.bool_()),
        ("truncated", pa.list_(pa.bool_())),
        ("visible_peers", pa.list_(_STRINGS)),
        ("behaviour_model_id", pa.string()),
    ]
)
ALIGNED_COLUMNS = [f.name for f in SCHEMA if pa.types.is_list(f.type) and f.name != "group_ids"]


def content_hash(rows: Sequence[dict[str, Any]]) -> str:
    """sha256 of the rows, the same whatever Parquet's writer or compression."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def write_dataset(rows: Sequence[dict[str, Any]], path: Path) -> str:
    """Writes the log; returns its content hash. Raises: DataError if a row has another shape."""
    try:
        table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"rows do not fit the log's schema: {error}") from error
    digest = content_hash(table.to_pylist())
    table = table.replace_schema_metadata(
        {VERSION_KEY: str(SCHEMA_VERSION).encode(), HASH_KEY: digest.encode()}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)
    return digest


def read_dataset(path: Path) -> list[dict[str, Any]]:
    """The rows of a log that passes every check. Raises: DataError naming the first bad rows."""
    rows, problems = _load(path)
    problems = problems or find_problems(rows)
    if problems:
        shown = "\n  ".join(problems[:5])
        more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DataError(f"log {path} is not usable:\n  {shown}{more}")
    return rows


def check_dataset(path: Path) -> list[str]:
    """Everything wrong with the log, in row order; empty if it is sound."""
    rows, problems = _load(path)
    return problems or find_problems(rows)


def _load(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    if not path.is_file():
        return [], [f"there is no file {path}; give the path of a Parquet log"]
    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:
        return [], [f"the file is not readable Parquet, it may be truncated: {error}"]
    metadata = table.schema.metadata or {}
    version = metadata.get(VERSION_KEY, b"none").decode()
    if version != str(SCHEMA_VERSION):
        return [], [
            f"schema version is {version}, this release reads {SCHEMA_VERSION}; collect the log "
            "again with this release"
        ]
    for field in SCHEMA:
        if field.name not in table.column_names:
            return [], [f"column {field.name!r} is missing; expected {', '.join(SCHEMA.names)}"]
        found = table.schema.field(field.name).type
        if found != field.type:
            return [], [f"column {field.name!r} has type {found}; expected {field.type}"]
    rows = table.select(SCHEMA.names).to_pylist()
    if metadata.get(HASH_KEY, b"").decode() != content_hash(rows):
        return rows, find_problems(rows) or [
            "the content does not have the hash of its metadata: rows were changed after collection"
        ]
    return rows, []


def find_problems(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Each bad row with its number (from 0) and the reason; then groups without any row."""
    if not rows:
        return ["the log has no rows; collect at least one episode"]
    problems: list[str] = []
    seen: dict[tuple[str, int], int] = {}
    rows_of_group = dict.fromkeys((g for r in rows for g in r["group_ids"] or []), 0)
    for number, row in enumerate(rows):
        problems += [f"row {number}: {reason}" for reason in _row_problems(row)]
        if row["group_ids"] and row["group_ids"] != rows[0]["group_ids"]:
            problems.append(
                f"row {number}: group_ids {row['group_ids']} differ from those of row 0, "
                f"{rows[0]['group_ids']}; mark a group that is away in `present`"
            )
        first = seen.setdefault((row["episode_id"], row["turn"]), number)
        if first != number:
            problems.append(f"row {number}: episode and turn stand in row {first} already")
        for group, present in zip(row["group_ids"] or [], row["present"] or [], strict=False):
            rows_of_group[group] += bool(present)
    for group, count in rows_of_group.items():
        if count == 0:
            problems.append(f"group {group!r} has no rows; collect again or leave the group out")
    return problems


def _row_problems(row: dict[str, Any]) -> list[str]:
    problems = []
    if not row["question_id"]:
        problems.append("question_id is empty; every question needs an id")
    if not row["group_ids"]:
        return [*problems, "group_ids is empty; a row holds one entry per group"]
    groups = row["group_ids"]
    if len(set(groups)) < len(groups):
        problems.append(f"group_ids {groups} names a group twice")
    for group in groups:
        if not re.match(GROUP_NAME, group or ""):
            problems.append(f"group name {group!r} does not match {GROUP_NAME}")
    if row["kind"] not in get_args(Kind):
        problems.append(f"kind is {row['kind']!r}; expected {' | '.join(get_args(Kind))}")
    if row["turn"] is None or row["turn"] < 0:
        problems.append(f"turn is {row['turn']}; expected 0, 1, ...")
    for column in ("prompt_text", "action_text", "parsed_answer"):
        for group, here, text in zip(groups, row["present"] or [], row[column] or [], strict=False):
            if here and text is None:
                problems.append(f"{column} of {group!r} is null though the group is present")
    if row["split"] == "test":
        problems.append("split is test; test questions never belong in a log")
    for column in ALIGNED_COLUMNS:
        found = len(row[column] or [])
        if found != len(groups):
            problems.append(f"{column} has {found} entries for {len(groups)} groups")
    for column in ("r_truth", "r_pers"):
        for group, value in zip(groups, row[column] or [], strict=False):
            if value is not None and not (math.isfinite(value) and 0 <= value <= 1):
                problems.append(f"{column} of {group!r} is {value}; expected [0, 1] or null")
    if not row["gold_visible"] and any(v is not None for v in row["r_truth"] or []):
        problems.append("gold_visible is false but r_truth is given: hidden gold has leaked")
    return problems
