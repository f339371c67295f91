"""What a run tells while it runs: metrics.jsonl, TensorBoard, and lines or bars for a person."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

logger = logging.getLogger(__name__)


class Display(Protocol):
    """How progress is shown. The CLI gives one with bars; the default logs plain lines."""

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, stage: str, completed: int, note: str = "") -> None: ...

    def finish(self, stage: str, note: str) -> None: ...


class LogDisplay:
    """Plain log lines, one when a stage starts and one when it ends."""

    def start(self, stage: str, total: int) -> None:
        logger.info("%s ...", stage)

    def advance(self, stage: str, completed: int, note: str = "") -> None:
        pass

    def finish(self, stage: str, note: str) -> None:
        logger.info("%s: %s", stage, note)


class Progress:
    """Metrics are `stage/name_unit` floats; every stage's wall time is one of them."""

    def __init__(self, folder: Path, display: Display | None = None):
        from tensorboardX import SummaryWriter

        self._file = folder / "metrics.jsonl"
        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self.display = display or LogDisplay()

    @contextmanager
    def stage(self, name: str, total: int = 1) -> Iterator[None]:
        """Times a stage and shows it."""
        self.display.start(name, total)
        start = time.monotonic()
        yield
        wall_s = time.monotonic() - start
        self.metrics({f"{name}/wall_s": wall_s}, 0)
        self.display.finish(name, f"{wall_s:.1f} s")

    def metrics(self, values: dict[str, float], step: int, **tags: str) -> None:
        """One line of metrics.jsonl, and TensorBoard scalars (tags become part of the name)."""
        record: dict[str, Any] = {"step": step, **tags, **values}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        suffix = "".join(f"/{tag}" for tag in tags.values())
        for name, value in values.items():
            self._writer.add_scalar(name + suffix, value, step)

    def close(self) -> None:
        self._writer.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl; a line cut by a kill is left out."""
    path = folder / "metrics.jsonl"
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            logger.warning("%s: a damaged line is left out", path)
    return records
