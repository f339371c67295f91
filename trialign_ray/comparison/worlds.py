"""The worlds of a comparison: knob x track x seed, each prepared once and shared by all methods.

A knob says how the logs were corrupted, a track which share of the log's facts is verified. Worlds
of one knob and seed share behaviour model and dialogues; only the visible gold differs.
"""

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from trialign_ray.config import Config, load_config
from trialign_ray.dataset import read_dataset, write_dataset
from trialign_ray.errors import ConfigError
from trialign_ray.progress import Progress
from trialign_ray.reference_scores import rebind_scores
from trialign_ray.run import Recipe, make_recipe
from trialign_ray.run_directory import RunDirectory, open_run
from trialign_ray.setting import build_setting

_CORRUPTION = "world.corruption"
KNOBS = {
    "clean": {},
    "A": {"systematic_myth": 0.9},
    "A+S": {"systematic_myth": 0.9, "sycophancy": 0.3},
    "B": {"noise": 0.3},
    "F": {"false_consensus": 0.25},
    "A+F+S": {"systematic_myth": 0.9, "sycophancy": 0.3, "false_consensus": 0.25},
}
"""Corruption by knob; what is not named is 0, but for style noise, which is always there."""
TRACKS = {"T0": 0.0, "T1": 0.1, "T2": 0.3, "T3": 1.0}
"""Share of the log's facts that is verified."""


@dataclass(frozen=True, order=True)
class World:
    """One setting of the benchmark."""

    knob: str
    track: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.knob.replace('+', '')}-{self.track}-s{self.seed}"

    @property
    def full(self) -> "World":
        """The same dialogues with all gold visible, from which every track is made."""
        return replace(self, track="T3")

    def overrides(self) -> list[str]:
        """The settings that make this world."""
        knobs = {"systematic_myth": 0.0, "sycophancy": 0.0, "noise": 0.0, "false_consensus": 0.0}
        values = knobs | KNOBS[self.knob]
        return [
            *(f"{_CORRUPTION}.{name}={value}" for name, value in values.items()),
            f"collect.label_fraction={TRACKS[self.track]}",
            f"seed={self.seed}",
        ]


def worlds_by_name(knobs: list[str], tracks: list[str], seeds: list[int]) -> list[World]:
    """All combinations. Raises: ConfigError, listing the knobs and tracks there are."""
    for what, given, known in (("knob", knobs, KNOBS), ("track", tracks, TRACKS)):
        for name in given:
            if name not in known:
                raise ConfigError(f"{what} {name!r} does not exist; expected {', '.join(known)}")
    return [World(k, t, s) for k in knobs for t in tracks for s in seeds]


def world_dir(root: Path, world: World) -> Path:
    """Where a world is prepared."""
    return root / "worlds" / world.name


def local_recipe(folder: Path, config: Config) -> Recipe:
    """A recipe that runs in this process; what is in the folder already is not done again."""
    run = open_run(folder, config, resume=True)
    return make_recipe(config, build_setting(config, run.root), run, Progress(run.root), local=True)


def prepare_dialogues(root: Path, world: World, base: Path | None, sets: list[str]) -> None:
    """Behaviour model, log with all gold, and reference scores of `world.full`."""
    config = load_config(base, [*sets, *world.full.overrides()])
    recipe = local_recipe(world_dir(root, world.full), config)
    try:
        recipe.fit_behaviour()
        recipe.collect()
        recipe.score()
    finally:
        recipe.close()
        recipe.progress.close()


def prepare_track(root: Path, world: World, base: Path | None, sets: list[str]) -> None:
    """The same dialogues with the gold of a track: what is hidden is null."""
    if world == world.full:
        return
    config = load_config(base, [*sets, *world.overrides()])
    source = RunDirectory(world_dir(root, world.full).resolve())
    run = open_run(world_dir(root, world), config, resume=True)
    share_files(source, run, ("models",))
    if run.scores_file.is_file():
        return
    questions = build_setting(config).log_questions(config.collect.label_fraction, config.seed)
    visible = {q.id for q in questions if q.gold_visible}
    rows = read_dataset(source.log_file)
    for row in rows:
        if row["question_id"] not in visible and row["kind"] != "subjective":
            row["gold_visible"] = False
            row["r_truth"] = [None] * len(row["r_truth"])
    digest = write_dataset(rows, run.log_file)
    rebind_scores(source.scores_file, run.scores_file, digest)


def share_files(source: RunDirectory, target: RunDirectory, names: tuple[str, ...]) -> None:
    """Links those folders or files that one run directory has into another; relative, so that both
    can move."""
    for name in names:
        link = target.root / name
        if (source.root / name).exists() and not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(source.root / name, link.parent))


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def remove_checkpoints(run: RunDirectory) -> None:
    """A finished cell needs its adapters alone."""
    shutil.rmtree(run.root / "checkpoints", ignore_errors=True)
