"""Where an audit keeps its things, and when it may be resumed."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trialign_ray.config import Config
from trialign_ray.errors import ConfigError
from trialign_ray.resuming import (
    CONFIG_NAME,
    is_used,
    require_free,
    require_same_settings,
    start_folder,
)

MAY_CHANGE = (
    "resources.",
    "engine.concurrency",
    "engine.timeout_s",
    "engine.max_retries",
)
"""Keys that decide no answer: a resumed audit may change them. collect.batch_size is none of them:
a model in this process rounds differently in batches of another size."""


@dataclass(frozen=True)
class Subject:
    """Whose answers are audited, in words and by identity.

    title: for people. identity: what must be the same when an audit is resumed.
    """

    title: str
    identity: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditFolder:
    """Where an audit keeps its things."""

    root: Path

    @property
    def request_file(self) -> Path:
        return self.root / "request.json"

    @property
    def answers_file(self) -> Path:
        return self.root / "answers.jsonl"

    @property
    def result_file(self) -> Path:
        return self.root / "audit.json"

    def discard_without_answers(self) -> None:
        """Takes away what `open_audit` wrote if nothing was ever answered."""
        if self.answers_file.is_file():
            return
        for path in (self.root / CONFIG_NAME, self.request_file):
            path.unlink(missing_ok=True)
        if not any(self.root.iterdir()):
            self.root.rmdir()


def open_audit(
    root: Path, config: Config, subject: Subject, split: str, resume: bool
) -> AuditFolder:
    """Creates the folder, or opens it to go on.

    Raises: ConfigError if it exists and `resume` is not asked for, or another audit stands in it.
    """
    folder = AuditFolder(root.expanduser().resolve())
    request = {
        "config": config.model_dump(mode="json"),
        "subject": {"title": subject.title, **subject.identity},
        "split": split,
    }
    require_free(folder.root, resume)
    if is_used(folder.root):
        _require_same_request(folder, request)
    else:
        start_folder(folder.root, config, {folder.request_file: request})
    return folder


def _require_same_request(folder: AuditFolder, request: dict[str, Any]) -> None:
    try:
        before = _settings(json.loads(folder.request_file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder.root} holds no audit to resume ({error}); choose another --run-dir"
        ) from error
    now = _settings(json.loads(json.dumps(request)))
    require_same_settings(folder.root, before, now, MAY_CHANGE)


def _settings(request: dict[str, Any]) -> dict[str, Any]:
    """The request with the configuration's keys under the names that the command line has."""
    return {**request["config"], "subject": request["subject"], "split": request["split"]}
