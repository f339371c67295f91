"""Verdicts already paid for, in one SQLite file. Safe under threads, processes and a kill."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from envs.errors import DataError
from envs.types import Message

WAIT_S = 30.0
"""How long a process waits for another that writes."""


def verdict_key(url: str, model: str, messages: Sequence[Message]) -> str:
    """sha256 of endpoint, model and prompt: what a verdict depends on."""
    content = json.dumps([url, model, list(messages)], ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


class VerdictCache:
    """Scores by key. Each is written at once, in a transaction of its own.

    The file is made when the first verdict is looked up; one that is there already is opened now.
    Raises: DataError if the file cannot be used.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        if path.exists():
            self._do("SELECT count(*) FROM verdicts")

    def get(self, key: str) -> int | None:
        """The score under `key`, None where there is none."""
        rows = self._do("SELECT score FROM verdicts WHERE key = ?", key)
        return int(rows[0][0]) if rows else None

    def put(self, key: str, score: int) -> None:
        """Keeps `score`; the first one stays."""
        self._do("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", key, score)

    def __len__(self) -> int:
        return int(self._do("SELECT count(*) FROM verdicts")[0][0])

    def close(self) -> None:
        """Gives the file back; another use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _do(self, statement: str, *values: str | int) -> list[tuple[int]]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                return self._connection.execute(statement, values).fetchall()
            except (OSError, sqlite3.Error) as error:
                raise DataError(
                    f"judge cache {self.path} cannot be used ({error}); give another file as the "
                    "judge's `cache`, or remove this one and pay for its verdicts again"
                ) from error

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self.path, timeout=WAIT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, score INTEGER NOT NULL)"
        )
        return connection
