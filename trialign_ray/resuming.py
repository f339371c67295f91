"""When a folder may be written to: it is free, or what stands in it was started with the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trialign_ray.checkpoint import write_atomically, write_json
from trialign_ray.config import Config, to_yaml
from trialign_ray.errors import ConfigError

CONFIG_NAME = "config.yaml"


def is_used(folder: Path) -> bool:
    """Whether anything is there but what a killed process was about to write."""
    if not folder.exists():
        return False
    return not folder.is_dir() or any(not p.name.endswith(".tmp") for p in folder.iterdir())


def require_free(folder: Path, resume: bool) -> None:
    """Raises: ConfigError if something is there and `resume` is not asked for."""
    if is_used(folder) and not resume:
        raise ConfigError(
            f"{folder} exists and is not empty; continue it with --resume, or choose another with "
            "--run-dir"
        )


def start_folder(
    folder: Path, config: Config, records: Mapping[Path, Mapping[str, Any]] | None = None
) -> None:
    """Makes the folder and writes into it what it is known by: records as JSON, and last the
    configuration. Raises: ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, record in (records or {}).items():
            write_json(path, dict(record))
        write_atomically(folder / CONFIG_NAME, to_yaml(config).encode())
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error}") from error


def require_same_settings(
    folder: Path,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    may_change: tuple[str, ...],
) -> None:
    """Raises: ConfigError if what stands in `folder` was started with other settings.

    Args: before, now: trees of JSON values. may_change: how the dotted keys begin that decide no
        result.
    """
    old, new = flat_settings(before), flat_settings(now)
    keys = [*new, *(k for k in old if k not in new)]
    changed = [k for k in keys if old.get(k) != new.get(k) and not k.startswith(may_change)]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"{folder} was started with {key}={old.get(key)!r}, now it is {new.get(key)!r}"
            + (f" ({len(changed) - 1} more keys differ)" if len(changed) > 1 else "")
            + "; resume with the same settings, or choose another --run-dir"
        )


def flat_settings(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The tree's values by dotted key, in its order."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
