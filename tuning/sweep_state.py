"""What a sweep was started with, so that it is continued by the same code and the same plan alone.

Ray Tune keeps its own state as pickles: reading one runs what is in it. Only folders that one
trusts may be restored, and only by the version of the code that wrote them.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tuning
from envs.errors import ConfigError
from trialign_ray.config import Config
from trialign_ray.run_cache import named_files
from trialign_ray.run_directory import git_commit, require_same_settings
from trialign_ray.run_trial import write_json
from tuning.prescreen import PRESCREEN_FILE
from tuning.sweep_plan import SweepPlan
from tuning.trial_folder import SweepFolder

PACKAGES = ("envs", "trialign_ray", "tuning")
MAY_CHANGE = ("stall_s",)
"""What of a plan decides no result and is not in Tune's state."""
BEHAVIOUR_FILE = "behaviour.json"
"""The behaviour model's figures on validation."""


def open_sweep(
    folder: SweepFolder, plan: SweepPlan, config: Config, space: Sequence[str], resume: bool
) -> None:
    """Notes what the sweep is started with, or checks that it goes on with the same.

    Args: config: what all trials share, as resolved. space: the searched dimensions in words.
    Raises: ConfigError if a sweep is there and `resume` is not asked for, or it was started by
    another version, with another plan, configuration or space, or files with other contents.
    """
    state = {
        "code": _code(),
        "git_commit": git_commit(),
        "plan": asdict(plan),
        "config": config.model_dump(mode="json"),
        "files": named_files(config),
        "space": list(space),
    }
    now = json.loads(json.dumps(state))
    before = _read(folder.state_file)
    if before is None or not folder.tune.exists():  # nothing was trained yet
        if before != now:  # what was found with other settings is no start for these
            for name in (PRESCREEN_FILE, BEHAVIOUR_FILE):
                (folder.root / name).unlink(missing_ok=True)
        write_json(folder.state_file, now)
        return
    if not resume:
        raise ConfigError(
            f"{folder.root} holds a sweep already; continue it with --resume, or choose another "
            "--run-dir"
        )
    _require_same_code(folder, before, now)
    require_same_settings(folder.root, before.get("plan", {}), now["plan"], MAY_CHANGE)
    require_same_settings(folder.root, before.get("config", {}), now["config"], ())
    _require_same_files(folder, before.get("files", {}), now["files"])
    if before.get("space") != now["space"]:
        raise ConfigError(
            f"{folder.root} searches another space ({'; '.join(before.get('space', []))}); resume "
            "with the same --space, or choose another --run-dir"
        )


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"{path} is not readable ({error}), so nobody knows what the sweep was started with; "
            "choose another --run-dir"
        ) from error


def _require_same_code(folder: SweepFolder, before: dict[str, Any], now: dict[str, Any]) -> None:
    old, new = before.get("code", {}), now["code"]
    changed = [f"{k} {old.get(k)!s:.12} (now {v!s:.12})" for k, v in new.items() if old.get(k) != v]
    if changed:
        raise ConfigError(
            f"{folder.root} was started by another version of the code: {', '.join(changed)}. Its "
            f"Ray Tune state ({folder.tune}) is a pickle, which is read by the version that wrote "
            "it and from trusted folders only. Finish it with that version (git commit "
            f"{before.get('git_commit') or 'unknown'}), or start again in another --run-dir; its "
            "finished trials stay readable, each is a run of its own"
        )


def _require_same_files(folder: SweepFolder, old: dict[str, str], new: dict[str, str]) -> None:
    changed = [path for path in {**old, **new} if old.get(path) != new.get(path)]
    if changed:
        raise ConfigError(
            f"what {changed[0]} holds is not what it held when {folder.root} was started"
            + (f" (nor {len(changed) - 1} more files)" if len(changed) > 1 else "")
            + "; bring the old content back, or choose another --run-dir"
        )


def _code() -> dict[str, str]:
    """Versions, and sha256 of our sources: a checkout changes more often than its version."""
    digest, tree = hashlib.sha256(), Path(str(tuning.__file__)).parent.parent
    for package in PACKAGES:
        for path in sorted((tree / package).rglob("*.py")):
            digest.update(str(path.relative_to(tree)).encode() + b"\0" + path.read_bytes())
    return {
        "trialign": version("trialign-ray"),
        "ray": version("ray"),
        "sources_sha256": digest.hexdigest(),
    }
