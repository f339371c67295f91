"""Checkpoints that survive a kill at any time: written aside, hashed, renamed; never pickled.

A checkpoint is complete exactly if its manifest names every file with its sha256. The previous one
is kept, so that a damaged newest one costs a few steps and no run.
"""

import hashlib
import json
import logging
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from trialign_ray.errors import ConfigError

logger = logging.getLogger(__name__)
TENSORS, STATE, MANIFEST = "state.safetensors", "state.json", "manifest.json"
NUM_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """`tensors`: weights and optimizer moments; `state`: everything else, as JSON."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole; what is not a number (nan) becomes null, as JSON has no nan."""
    write_atomically(path, json.dumps(_without_nan(value), indent=1, allow_nan=False).encode())


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Adds a checkpoint to `folder` and removes all but the newest two."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{checkpoint.step:08d}"
    temporary = folder / f".tmp-{checkpoint.step:08d}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file(checkpoint.tensors, temporary / TENSORS)
    state = json.dumps({"step": checkpoint.step, **checkpoint.state}, sort_keys=True)
    (temporary / STATE).write_text(state, encoding="utf-8")
    for name in (TENSORS, STATE):
        _fsync(temporary / name)
    hashes = {name: file_sha256(temporary / name) for name in (TENSORS, STATE)}
    write_atomically(temporary / MANIFEST, json.dumps(hashes, sort_keys=True).encode())
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    _fsync(folder)
    for old in _steps(folder)[:-NUM_KEPT]:
        shutil.rmtree(old)
    return final


def newest_checkpoint(folder: Path, expected: dict[str, Any]) -> Checkpoint | None:
    """The newest complete checkpoint, or None. Damaged ones are skipped with a warning.

    Args: expected: entries of `state` that must agree (configuration hash, data hash, groups).
    Raises: ConfigError if a complete checkpoint belongs to another run.
    """
    for path in reversed(_steps(folder)):
        problem = _damage(path)
        if problem:
            logger.warning("checkpoint %s is skipped: %s", path, problem)
            continue
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        for key, value in expected.items():
            if state.get(key) != value:
                raise ConfigError(
                    f"checkpoint {path} has {key} {state.get(key)!r}, this run has {value!r}; "
                    "resume with the configuration it was started with, or use a new --run-dir"
                )
        return Checkpoint(state.pop("step"), load_file(path / TENSORS), state)
    return None


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def _damage(path: Path) -> str | None:
    try:
        hashes = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        for name in (TENSORS, STATE):
            if file_sha256(path / name) != hashes[name]:
                return f"{name} does not have the sha256 of its manifest"
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
