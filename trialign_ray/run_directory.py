"""Where a run keeps its things: `runs/<name>/`. One place knows the layout."""

import hashlib
import json
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

from trialign_ray.checkpoint import write_json
from trialign_ray.config import Config, parse_config
from trialign_ray.errors import ConfigError
from trialign_ray.resuming import (
    CONFIG_NAME,
    is_used,
    require_free,
    require_same_settings,
    start_folder,
)

_PACKAGES = ("ray", "torch", "transformers", "peft", "pyarrow", "numpy", "scipy")


@dataclass(frozen=True)
class RunDirectory:
    """Paths of a run; `root` is absolute."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def config_file(self) -> Path:
        return self.root / CONFIG_NAME

    @property
    def manifest_file(self) -> Path:
        return self.root / "manifest.json"

    @property
    def log_file(self) -> Path:
        return self.root / "dataset" / "log.parquet"

    @property
    def scores_file(self) -> Path:
        return self.root / "critic" / "reference_scores.parquet"

    @property
    def critic_report(self) -> Path:
        return self.root / "critic" / "report.json"

    @property
    def solution_file(self) -> Path:
        return self.root / "targets" / "solution.json"

    @property
    def training_file(self) -> Path:
        return self.root / "adapters" / "training.json"

    @property
    def behaviour_dir(self) -> Path:
        return self.root / "models" / "behaviour"

    @property
    def metrics_file(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def evaluation_file(self) -> Path:
        return self.root / "evaluation.json"

    @property
    def off_policy_file(self) -> Path:
        return self.root / "off_policy.json"

    @property
    def selection_file(self) -> Path:
        return self.root / "selection.json"

    def rows_file(self, group: str) -> Path:
        return self._inside("targets", f"{group}.parquet")

    def adapter_dir(self, group: str) -> Path:
        return self._inside("adapters", group)

    def checkpoint_dir(self, group: str) -> Path:
        return self._inside("checkpoints", group)

    def _inside(self, *parts: str) -> Path:
        path = self.root.joinpath(*parts).resolve()
        if not path.is_relative_to(self.root):
            raise ConfigError(f"path {path} lies outside the run directory {self.root}")
        return path


def config_hash(config: Config) -> str:
    """sha256 of everything that decides the result: the configuration without `resources`."""
    tree = config.model_dump(mode="json", exclude={"resources"})
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def open_run(root: Path, config: Config, resume: bool) -> RunDirectory:
    """Creates the run directory, or opens it to go on.

    Raises: ConfigError if it exists and `resume` is not asked for, or if it was started with
    another configuration. Nothing is overwritten.
    """
    run = RunDirectory(root.expanduser().resolve())
    require_free(run.root, resume)
    if is_used(run.root):
        if not run.config_file.is_file():
            raise ConfigError(
                f"{run.root} holds no {CONFIG_NAME}, so it is no run to resume; choose another "
                "--run-dir"
            )
        _require_same_config(run, config)
    else:
        start_folder(run.root, config)
    if not run.manifest_file.is_file():
        write_json(run.manifest_file, _manifest(config))
    return run


def existing_run(root: Path) -> tuple[RunDirectory, Config]:
    """A run that was started before, and its configuration. Raises: ConfigError."""
    run = RunDirectory(root.expanduser().resolve())
    if not run.config_file.is_file():
        raise ConfigError(
            f"{run.root} is no run directory (no config.yaml); give the folder that `trialign "
            "train` or `trialign quickstart` wrote"
        )
    tree = yaml.safe_load(run.config_file.read_text(encoding="utf-8"))
    return run, parse_config(tree, str(run.config_file))


def _require_same_config(run: RunDirectory, config: Config) -> None:
    before = existing_run(run.root)[1].model_dump(mode="json")
    require_same_settings(run.root, before, config.model_dump(mode="json"), ("resources.",))


def _manifest(config: Config) -> dict:
    return {
        "config_sha256": config_hash(config),
        "seed": config.seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in _PACKAGES},
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """The commit of our source tree, or None outside a checkout."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
