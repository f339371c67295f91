"""A run with other settings on the log of another: it shares models, log and reference scores.

A variant is an ordinary run directory inside the run that it comes from, made in one process:
`trialign report` and `--resume` work on it too.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
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
from trialign_ray.evaluate import answer_metrics, answer_questions
from trialign_ray.metrics import Protocol
from trialign_ray.run import Recipe
from trialign_ray.run_directory import RunDirectory

ByGroup = dict[str, dict[str, float]]
"""Values by split and group."""
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
    """What a trained variant is worth on held-out questions, by split and group.

    personalization: mean preference score of the log's raters, on the scale of what is promised.
    adherence: share of answers that keep every style rule. failure: why there is nothing.
    """

    truth: ByGroup = field(default_factory=dict)
    personalization: ByGroup = field(default_factory=dict)
    adherence: ByGroup = field(default_factory=dict)
    wall_s: float = 0.0
    failure: str = ""

    @property
    def splits(self) -> list[str]:
        return list(self.truth)


def train_variant(variant: Variant) -> Realised:
    """Trains and asks a variant on validation and test, or reads what it left when it was done.

    An error becomes a failure, so that one broken variant does not lose the others.
    """
    try:
        return _realised(_trained(variant))
    except TrialignError as error:
        return Realised(failure=str(error))


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
        splits: list[Split] = [
            s for s in SPLITS if any(q.has_truth for q in recipe.setting.of_split(s))
        ]
        result = {
            "overrides": list(variant.overrides),
            "splits": {s: _asked(recipe, s) for s in splits},
            "wall_s": time.monotonic() - started,
        }
    finally:
        recipe.close()
        recipe.progress.close()
    remove_checkpoints(recipe.run_dir)
    write_json(path, result)
    return result


def _asked(recipe: Recipe, split: Split) -> dict[str, Any]:
    """The metrics of the run's adapters, and how the log's raters would like what they say."""
    protocol, modes = recipe.protocol(split), recipe.config.evaluate.modes
    answers = {m: answer_questions(protocol, recipe.workers, "aligned", m) for m in modes}
    metrics = answer_metrics(protocol, answers, jsd=None)
    liked = {g: _liking(recipe, protocol, g, said) for g, said in answers[modes[0]].texts.items()}
    metrics["personalization"] = {g: value for g, value in liked.items() if value is not None}
    return metrics


def _liking(recipe: Recipe, protocol: Protocol, group: str, said: list[str]) -> float | None:
    judged = [
        recipe.setting.log_judge(group, question, text).personalization
        for question, text in zip(protocol.questions, said, strict=True)
    ]
    known = [value for value in judged if value is not None]
    return fmean(known) if known else None


def _realised(result: dict[str, Any]) -> Realised:
    """Adherence under the first prompt mode, as truth and personalization."""
    splits = result["splits"]
    return Realised(
        truth={s: m["truth"]["by_group"] for s, m in splits.items()},
        personalization={s: m["personalization"] for s, m in splits.items()},
        adherence={s: _adherence(m) for s, m in splits.items()},
        wall_s=result["wall_s"],
    )


def _adherence(metrics: dict[str, Any]) -> dict[str, float]:
    """Of the groups that have style rules."""
    by_group = next(iter(metrics["adherence"].values()))["by_group"]
    return {group: kept for group, kept in by_group.items() if kept is not None}
