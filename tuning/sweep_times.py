"""How long a sweep's parts have taken, over all times it was continued, killed drivers included."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from trialign_ray.run_trial import write_json

TIMES_FILE = "times.json"
NOTE_S = 3.0
"""A killed driver forgets at most so many seconds."""


def read_times(root: Path) -> dict[str, float]:
    """Seconds: prepare_s, once for all trials, and trials_s, while Tune ran them."""
    path = root / TIMES_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@contextmanager
def noted_time(root: Path, part: Literal["prepare_s", "trials_s"]) -> Iterator[None]:
    """Adds the time spent inside to what the part has taken, written down every `NOTE_S`."""
    earlier, started = read_times(root).get(part, 0.0), time.monotonic()
    over = threading.Event()

    def note() -> None:
        write_json(
            root / TIMES_FILE,
            {**read_times(root), part: earlier + time.monotonic() - started},
        )

    def keep_noting() -> None:
        while not over.wait(NOTE_S):
            note()

    thread = threading.Thread(target=keep_noting, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        note()
