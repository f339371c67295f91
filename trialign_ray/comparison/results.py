"""A comparison as far as it is done: the finished cells, what is missing, and two Parquet files."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trialign_ray.checkpoint import write_atomically
from trialign_ray.comparison.cell_results import BROKEN, CellResult, SplitMetrics, read_cell
from trialign_ray.comparison.cells import CELL_FILE
from trialign_ray.comparison.methods import Method, all_methods
from trialign_ray.comparison.worlds import worlds_by_name
from trialign_ray.errors import DataError

RECORD = "comparison.json"


@dataclass(frozen=True)
class Results:
    """A comparison as far as it is done. record: `comparison.json`. not_finished: cells of the
    record's plan that have no result. cells: in the order of their names."""

    record: Mapping[str, Any]
    methods: Mapping[str, Method]
    cells: tuple[CellResult, ...]
    not_finished: tuple[str, ...]

    @property
    def tuning_world(self) -> str | None:
        return self.record.get("tuning_world")

    def chosen(self, method: str) -> int:
        """The setting that a method's rows are of."""
        return int(self.record["chosen"].get(method, 0))

    def is_row(self, cell: CellResult) -> bool:
        """Whether a cell belongs into the tables: chosen setting, not of the tuning world."""
        return (
            cell.world.name != self.tuning_world
            and cell.method in self.methods
            and cell.setting == self.chosen(cell.method)
        )


def load(root: Path, methods: Mapping[str, Method] | None = None) -> Results:
    """All finished cells under `root`. methods: what the names mean; None: every known method.

    Raises: DataError, naming the file, for a missing or damaged record and for a damaged result;
    what has no result at all is listed in `not_finished`.
    """
    methods = all_methods() if methods is None else methods
    record = _read_record(root / RECORD)
    paths = sorted((root / "cells").glob(f"*/*/{CELL_FILE}"))
    cells = tuple(read_cell(path) for path in paths)
    made_at = sorted({cell.git_commit[:12] for cell in cells if cell.git_commit})
    if made_at:  # a resumed comparison may hold cells of several commits
        record = {**record, "git_commit": ", ".join(made_at)}
    done = {cell.name for cell in cells}
    missing = tuple(name for name in _expected(record, methods) if name not in done)
    return Results(record, methods, cells, missing)


def _read_record(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path} does not exist; run `trialign compare` first")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        wanted = ("knobs", "tracks", "seeds", "methods", "chosen")
        absent = [key for key in wanted if key not in record]
    except BROKEN as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error})") from error
    if absent:
        raise DataError(f"{path} has no {', '.join(absent)}; go on with `compare --resume`")
    return record


def _expected(record: Mapping[str, Any], methods: Mapping[str, Method]) -> Iterator[str]:
    tuning, chosen = record.get("tuning_world"), record["chosen"]
    for world in worlds_by_name(record["knobs"], record["tracks"], record["seeds"]):
        if world.name != tuning:
            yield from (f"{world.name}/{m}.{chosen.get(m, 0)}" for m in record["methods"])
    for name in record["methods"] if tuning else ():
        method = methods.get(name)
        if method and not method.tuned_as:
            yield from (f"{tuning}/{name}.{i}" for i in range(len(method.settings)))


def write_parquet(results: Results, root: Path) -> tuple[Path, Path]:
    """Writes results.parquet (a row per cell and split) and questions.parquet (a row per cell,
    split and question; lists in the order of `groups`); returns their paths.

    Every finished cell is in them, with all settings. The metadata of both holds `not_finished`,
    `command`, `git_commit` and `tuning_world`, as JSON.
    """
    about = {k: results.record.get(k) for k in ("command", "git_commit", "tuning_world")}
    about["not_finished"] = list(results.not_finished)
    paths = (root / "results.parquet", root / "questions.parquet")
    rows = [row for cell in results.cells for row in _rows(results, cell)]
    for path, table in zip(
        paths,
        (pa.Table.from_pylist(rows, _ROWS), _question_table(results)),
        strict=True,
    ):
        metadata = {key: json.dumps(value) for key, value in about.items()}
        buffer = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(metadata), buffer)
        write_atomically(path, buffer.getvalue())
    return paths


_KEYS = {
    "knob": pa.string(),
    "track": pa.string(),
    "seed": pa.int64(),
    "method": pa.string(),
    "setting": pa.int64(),
    "split": pa.string(),
}
_ROWS = pa.schema(
    {
        **_KEYS,
        "family": pa.string(),
        "chosen": pa.bool_(),
        "tuning": pa.bool_(),
        **{name: pa.float64() for name in SplitMetrics.__dataclass_fields__},
        "wall_s": pa.float64(),
        "overrides": pa.list_(pa.string()),
    }
)
_QUESTIONS = pa.schema(
    {
        **_KEYS,
        "question_id": pa.string(),
        "groups": pa.list_(pa.string()),
        "correct": pa.list_(pa.bool_()),
        "answer": pa.list_(pa.string()),
    }
)


def _key(cell: CellResult, split: str) -> dict[str, Any]:
    own = {"method": cell.method, "setting": cell.setting, "split": split}
    return {**asdict(cell.world), **own}


def _rows(results: Results, cell: CellResult) -> Iterator[dict[str, Any]]:
    method = results.methods.get(cell.method)
    for split, result in cell.splits.items():
        yield {
            **_key(cell, split),
            "family": method.family if method else None,
            "chosen": cell.setting == results.chosen(cell.method),
            "tuning": cell.world.name == results.tuning_world,
            **asdict(result.metrics),
            "wall_s": cell.wall_s,
            "overrides": list(cell.overrides),
        }


def _question_table(results: Results) -> pa.Table:
    tables = [_QUESTIONS.empty_table()]
    for cell in results.cells:
        for split, result in cell.splits.items():
            num = len(result.question_ids)
            columns = {key: [value] * num for key, value in _key(cell, split).items()}
            columns["question_id"] = list(result.question_ids)
            columns["groups"] = [list(result.groups)] * num
            columns["correct"] = result.correct_GX.T.tolist()
            answers = result.answers
            columns["answer"] = (
                list(map(list, zip(*answers, strict=True))) if answers else [None] * num
            )
            tables.append(pa.Table.from_pydict(columns, _QUESTIONS))
    return pa.concat_tables(tables)
