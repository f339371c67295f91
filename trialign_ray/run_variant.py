"""A run with other settings on the log of another: it shares models, log and reference scores.

A variant is an ordinary run directory inside the run that it comes from, made in one process:
`trialign report` and `--resume` work on it too.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.types import Split
from trialign_ray.checkpoint import write_json
from trialign_ray.comparison.worlds import (
    local_recipe,
    read_json,
    remove_checkpoints,
    share_files,
)
from trialign_ray.config import load_config
from trialign_ray.errors import TrialignError
from trialign_ray.evaluate import evaluate_model
from trialign_ray.run_directory import RunDirectory

RESULT_FILE = "realised.json"
SPLITS: tuple[Split, ...] = ("validation", "test")
SHARED = ("models", "dataset", "critic/reference_scores.parquet")


@dataclass(frozen=True)
class Variant:
    """What to train where. overrides: on top of the configuration of the run `source`."""

    source: str
    folder: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Realised:
    """What a trained variant is worth, by split; failure: why there is nothing."""

    truth: dict[str, dict[str, float]]
    adherence: dict[str, dict[str, float]]
    wall_s: float = 0.0
    failure: str = ""

    def worst_truth(self, split: str) -> float:
        return min(self.truth[split].values())

    def worst_adherence(self, split: str) -> float:
        return min(self.adherence[split].values())


def train_variant(variant: Variant) -> Realised:
    """Trains and asks a variant on validation and test, or reads what it left when it was done.

    An error becomes a failure, so that one broken variant does not lose the others.
    """
    try:
        return _realised(_trained(variant))
    except TrialignError as error:
        return Realised({}, {}, failure=str(error))


def _trained(variant: Variant) -> dict[str, Any]:
    """Raises: TrialignError; ConfigError if the folder holds a variant with other settings."""
    source = RunDirectory(Path(variant.source).resolve())
    config = load_config(source.config_file, list(variant.overrides))
    recipe = local_recipe(Path(variant.folder), config)
    started, path = time.monotonic(), recipe.run_dir.root / RESULT_FILE
    try:
        if path.is_file():
            return read_json(path)
        shared = tuple(name for name in SHARED if (source.root / name).exists())
        share_files(source, recipe.run_dir, shared)
        recipe.solve()
        recipe.clone()
        splits = [s for s in SPLITS if any(q.has_truth for q in recipe.setting.of_split(s))]
        metrics = {s: evaluate_model(recipe.protocol(s), recipe.workers, "aligned") for s in splits}
        result = {
            "overrides": list(variant.overrides),
            "splits": metrics,
            "wall_s": time.monotonic() - started,
        }
    finally:
        recipe.close()
        recipe.progress.close()
    remove_checkpoints(recipe.run_dir)
    write_json(path, result)
    return result


def _realised(result: dict[str, Any]) -> Realised:
    """Truth and adherence by split and group, the latter under the first prompt mode."""
    truth, adherence = {}, {}
    for split, metrics in result["splits"].items():
        first = next(iter(metrics["adherence"].values()))
        adherence[split] = first["by_group"]
        truth[split] = metrics["truth"]["by_group"]
    return Realised(truth, adherence, result["wall_s"])
