"""Where an audit keeps its things, and when it may be resumed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trialign_ray.checkpoint import write_atomically, write_json
from trialign_ray.config import Config, to_yaml
from trialign_ray.errors import ConfigError

MAY_CHANGE = (
    "resources.",
    "engine.concurrency",
    "engine.timeout_s",
    "engine.max_retries",
    "collect.batch_size",
)
"""Keys that decide no answer: a resumed audit may change them."""


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

    def require_free(self, resume: bool) -> None:
        """Raises: ConfigError if something is there and `resume` is not asked for."""
        if self.is_used and not resume:
            raise ConfigError(
                f"{self.root} exists and is not empty; continue it with --resume, or choose "
                "another with --run-dir"
            )

    @property
    def is_used(self) -> bool:
        return self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir()))

    def discard_without_answers(self) -> None:
        """Takes away what `open_audit` wrote if nothing was ever answered."""
        if self.answers_file.is_file():
            return
        for name in ("config.yaml", "request.json"):
            (self.root / name).unlink(missing_ok=True)
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
    folder.require_free(resume)
    if folder.is_used:
        _require_same_request(folder, request)
        return folder
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
        write_atomically(folder.root / "config.yaml", to_yaml(config).encode())
        write_json(folder.request_file, request)
    except OSError as error:
        raise ConfigError(f"{folder.root} cannot be written: {error}") from error
    return folder


def _require_same_request(folder: AuditFolder, request: dict[str, Any]) -> None:
    try:
        before = _flat(json.loads(folder.request_file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder.root} holds no audit to resume ({error}); choose another --run-dir"
        ) from error
    now = _flat(json.loads(json.dumps(request)))
    for key in sorted(before.keys() | now.keys()):
        name = key.removeprefix("config.")
        if before.get(key) != now.get(key) and not name.startswith(MAY_CHANGE):
            raise ConfigError(
                f"the audit in {folder.root} was started with {name}={before.get(key)!r}, now it "
                f"is {now.get(key)!r}; resume with the same settings, or choose another --run-dir"
            )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
