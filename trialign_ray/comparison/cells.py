"""One cell of a comparison: a method in a world, trained and asked on validation and test.

A cell is an ordinary run directory, made in one process: `trialign report` reads it too. What it
leaves is `cell.json`: metrics and the per-question record of each split.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trialign_ray.checkpoint import write_json
from trialign_ray.comparison.methods import SOUP_WEIGHTS, Method
from trialign_ray.comparison.worlds import (
    World,
    local_recipe,
    read_json,
    remove_checkpoints,
    share_files,
)
from trialign_ray.config import load_config
from trialign_ray.errors import ConfigError
from trialign_ray.evaluate import answer_metrics, answer_questions, evaluate_model
from trialign_ray.metrics import Answers, Protocol
from trialign_ray.restyle import majority_restyled, neutral_restyled
from trialign_ray.run import Recipe
from trialign_ray.run_directory import RunDirectory, git_commit

Split = Literal["validation", "test"]
CELL_FILE = "cell.json"


@dataclass(frozen=True)
class Cell:
    """A method with one of its settings in a world."""

    world: World
    method: Method
    setting: int = 0

    @property
    def name(self) -> str:
        return f"{self.world.name}/{self.method.name}.{self.setting}"

    @property
    def overrides(self) -> list[str]:
        """Everything that the cell sets on top of the comparison's own configuration."""
        algorithm = [f"algorithm={self.method.algorithm}"] if self.method.algorithm else []
        chosen = self.method.settings[self.setting] if self.method.settings else ()
        return [*self.world.overrides(), *algorithm, *chosen, *self.method.overrides]


def cell_file(root: Path, cell: Cell) -> Path:
    """Where a cell's result lies when it is done."""
    return root / "cells" / cell.name / CELL_FILE


def run_cell(root: Path, cell: Cell, base: Path | None, sets: list[str]) -> dict[str, Any]:
    """The result of a cell, from its file if it is done. Raises: TrialignError."""
    path = cell_file(root, cell)
    if path.is_file():
        return _finished(path, cell)
    started = time.monotonic()
    config = load_config(base, [*sets, *cell.overrides])
    recipe = local_recipe(path.parent, config)
    share_files(
        RunDirectory((root / "worlds" / cell.world.name).resolve()),
        recipe.run_dir,
        ("models", "dataset", "critic/reference_scores.parquet"),
    )
    try:
        if cell.method.soup:
            _average(root, cell, recipe)
        elif cell.method.algorithm:
            recipe.solve()
            recipe.clone()
        result = {
            "world": vars(cell.world),
            "method": cell.method.name,
            "setting": cell.setting,
            "overrides": cell.overrides,
            "git_commit": git_commit(),
            "splits": {s: _metrics(recipe, cell.method, s) for s in ("validation", "test")},
            "wall_s": time.monotonic() - started,
        }
    finally:
        recipe.close()
        recipe.progress.close()
    remove_checkpoints(recipe.run_dir)
    write_json(path, result)
    return result


def _finished(path: Path, cell: Cell) -> dict[str, Any]:
    """The result that is there. Raises: ConfigError if it was made with other settings."""
    result = read_json(path)
    if result["overrides"] != cell.overrides:
        raise ConfigError(
            f"{path} was made with {result['overrides']}, now the cell asks for {cell.overrides}; "
            "remove its folder, or choose another --run-dir"
        )
    return result


def _metrics(recipe: Recipe, method: Method, split: Split) -> dict[str, Any]:
    protocol, workers = recipe.protocol(split), recipe.workers
    if method.answering in (None, "behaviour", "prompt"):
        models = {None: "aligned", "behaviour": "behaviour", "prompt": "facts_base"}
        return evaluate_model(protocol, workers, models[method.answering])
    modes = protocol.config.modes
    answers = {mode: _untrained_answers(protocol, workers, method, mode) for mode in modes}
    return answer_metrics(protocol, answers, jsd=None)


def _untrained_answers(protocol: Protocol, workers: Any, method: Method, mode: Any) -> Answers:
    if method.answering == "neutral_restyle":
        return neutral_restyled(protocol, workers, "behaviour", mode)
    if method.answering == "base_restyle":
        return neutral_restyled(protocol, workers, "behaviour", mode, answering="facts_base")
    if method.answering == "majority_restyle":
        return majority_restyled(protocol, workers, "behaviour", mode)
    return answer_questions(protocol, workers, "facts_base", "none")


def _average(root: Path, cell: Cell, recipe: Recipe) -> None:
    """The weighted mean of two cells' adapters, factor by factor, as the run's own adapters."""
    from trialign_ray.adapters import average_adapters
    from trialign_ray.checkpoint import file_sha256

    assert cell.method.soup is not None
    parts = [root / "cells" / cell.world.name / f"{name}.0" for name in cell.method.soup]
    first = SOUP_WEIGHTS[cell.setting]
    hashes = {}
    for group in recipe.setting.groups:
        folder = recipe.run_dir.adapter_dir(group.name)
        folders = [part / "adapters" / group.name for part in parts]
        average_adapters(folders, (first, 1 - first), folder)
        hashes[group.name] = file_sha256(folder / "adapter_model.safetensors")
    write_json(recipe.run_dir.training_file, {"adapter_sha256": hashes})
