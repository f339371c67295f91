"""Reference scores: what the behaviour model and the raters say of every candidate, computed once.

Stored with the hash of the log they belong to; scores of another log are refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trialign_ray.dataset import HASH_KEY
from trialign_ray.errors import DataError


def write_scores(scores: list[dict[str, Any]], path: Path, dataset_hash: str) -> None:
    """Stores reference log-probabilities with the hash of the log they belong to."""
    table = pa.Table.from_pylist(scores).replace_schema_metadata(
        {b"trialign.dataset_sha256": dataset_hash.encode()}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)


def rebind_scores(source: Path, target: Path, dataset_hash: str) -> None:
    """Copies scores to a log with the same texts: only its visible gold may differ."""
    write_scores(pq.read_table(source).to_pylist(), target, dataset_hash)


@dataclass(frozen=True)
class TextScore:
    """Reference log-probability and preference score of a text for a group."""

    logprob: float
    personalization: float | None


def read_scores(path: Path, dataset_file: Path) -> dict[tuple[str, str, str], TextScore]:
    """Scores by (question, group, text).

    Raises: DataError if they were computed for another log.
    """
    table = pq.read_table(path)
    found = (table.schema.metadata or {}).get(b"trialign.dataset_sha256", b"")
    expected = pq.read_schema(dataset_file).metadata[HASH_KEY]
    if found != expected:
        raise DataError(
            f"reference scores {path} belong to a log with hash {found.decode()[:12]}, but "
            f"{dataset_file} has {expected.decode()[:12]}; delete the scores and run again"
        )
    return {
        (r["question_id"], r["group"], r["text"]): TextScore(r["logprob"], r["personalization"])
        for r in table.to_pylist()
    }
