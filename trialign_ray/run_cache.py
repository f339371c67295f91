"""What many runs have in common, computed once: behaviour model, log with reference scores, critic.

Every stage's results lie under `<cache>/<stage>/<sha256>`, where the sha256 is of what decides
them and of nothing else: a run with another truth head finds the same log, and fits its own critic.
An entry is published by one rename, so that it is whole or not there; two processes that need the
same wait for one another, and if one hangs, both compute it and the first to finish is believed.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import trialign_ray
from envs.questions import SOURCES
from trialign_ray.checkpoint import file_sha256, write_json
from trialign_ray.comparison.worlds import share_files
from trialign_ray.config import Config
from trialign_ray.config_preferences import ClassifierSection, RewardModelSection
from trialign_ray.run_directory import RunDirectory
from trialign_ray.truth_heads.saved import ESTIMATE, USED_AFTER_THE_FIT

logger = logging.getLogger(__name__)
LOCK_POLL_S = 0.2
KEY_FILE = "key.json"
OWN_KEYS_FILE = "stages.json"
"""In a run: under which key it made, or took, each stage's outputs."""


@dataclass(frozen=True)
class Stage:
    """A shared stage: its name, the sections that decide it, and what it leaves in a run."""

    name: str
    sections: tuple[str, ...]
    outputs: tuple[str, ...]

    def parts(self, config: Config) -> dict[str, Any]:
        """Everything that decides the stage's result, as JSON values."""
        tree = config.model_dump(mode="json")
        chosen = {name: tree[name] for name in self.sections}
        if "critic" in chosen:
            unread = USED_AFTER_THE_FIT
            chosen["critic"] = {k: v for k, v in chosen["critic"].items() if k not in unread}
        return {
            "version": trialign_ray.__version__,
            "stage": self.name,
            "sections": chosen,
            "files": named_files(config),
        }

    def key(self, config: Config) -> str:
        """sha256 of `parts`."""
        text = json.dumps(self.parts(config), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def done(self, run: RunDirectory) -> bool:
        """Whether the run has all that the stage leaves."""
        return all((run.root / name).exists() for name in self.outputs)


_MODEL = ("seed", "world", "behaviour", "model")
_LOG = (*_MODEL, "preferences", "engine", "collect")
BEHAVIOUR = Stage("behaviour", _MODEL, ("models/behaviour",))
LOG = Stage("log", _LOG, ("dataset", "critic/reference_scores.parquet"))
CRITIC = Stage(
    "critic",
    (*_LOG, "critic"),
    tuple(
        f"critic/{name}"
        for name in (ESTIMATE, "truth_head.json", "truth_heads.json", "report.json")
    ),
)


def named_files(config: Config) -> dict[str, str]:
    """sha256 by path of all local files that the configuration names: questions, group pack, chat
    templates, a classifier's log. Their content decides, not their path alone. Folders of models
    are not among them."""
    world = config.world
    named = [*world.questions, world.groups, config.model.chat_template]
    for scorer in config.preferences:
        if isinstance(scorer, ClassifierSection):
            named.append(scorer.log)
        if isinstance(scorer, RewardModelSection):
            named.append(scorer.chat_template)
    for name in world.questions:
        source, _, part = name.partition(":")
        if source in SOURCES and world.data_dir is not None:
            named += map(str, SOURCES[source].files(Path(world.data_dir), part or None))
    return {name: file_sha256(Path(name)) for name in named if name and Path(name).is_file()}


def share(
    cache: Path,
    stage: Stage,
    config: Config,
    run: RunDirectory,
    make: Callable[[], None],
    timeout_s: float,
) -> bool:
    """Gives the run a stage's results: linked from the cache, or made by it and published. What it
    has under another key, of files with other contents say, is removed.

    Args: make: computes the stage in the run. timeout_s: longest wait for another process that is
    at the same. Returns: whether the run made them itself.
    """
    key = stage.key(config)
    entry = cache / stage.name / key
    if entry.is_dir():  # before any lock, which a cache that cannot be written to does not give
        _take(stage, run, entry)
        return False
    with _lock(entry, timeout_s):
        if entry.is_dir():
            _take(stage, run, entry)
            return False
        _own(stage, run, key)
        make()
        _publish(stage, config, run, entry)
        return True


def _take(stage: Stage, run: RunDirectory, entry: Path) -> None:
    """Links what the entry holds, unless the run has it."""
    if _own_keys(run).get(stage.name) != entry.name or not stage.done(run):
        _remove_outputs(stage, run)
        share_files(RunDirectory(entry), run, stage.outputs)
        _note_key(stage, run, entry.name)


def _own(stage: Stage, run: RunDirectory, key: str) -> None:
    """The run's outputs are those of `key` from here on; what is of another, or of nobody knows
    which, would be published under a key that does not say what it is."""
    if _own_keys(run).get(stage.name) != key:
        _remove_outputs(stage, run)
        _note_key(stage, run, key)


def _own_keys(run: RunDirectory) -> dict[str, str]:
    path = run.root / OWN_KEYS_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _note_key(stage: Stage, run: RunDirectory, key: str) -> None:
    write_json(run.root / OWN_KEYS_FILE, {**_own_keys(run), stage.name: key})


def _remove_outputs(stage: Stage, run: RunDirectory) -> None:
    for name in stage.outputs:
        path = run.root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _publish(stage: Stage, config: Config, run: RunDirectory, entry: Path) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = entry.with_name(f".{entry.name[:12]}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    for name in stage.outputs:
        source, target = run.root / name, temporary / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
    write_json(temporary / KEY_FILE, stage.parts(config))
    try:
        temporary.rename(entry)
    except OSError:
        shutil.rmtree(temporary)
        if not entry.is_dir():
            raise


@contextmanager
def _lock(entry: Path, timeout_s: float) -> Iterator[None]:
    """Held by one process at a time, freed when it ends however it ends; not waited for longer than
    `timeout_s`, nor where there are no locks, since publishing is safe without it too."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_s
    with entry.with_name(f".{entry.name}.lock").open("a") as file:
        while not try_lock(file):
            if time.monotonic() > deadline:
                logger.warning("%s: waited %g s, computing it here too", entry, timeout_s)
                break
            time.sleep(LOCK_POLL_S)
        yield


def try_lock(file: IO[str]) -> bool:
    """Locks an open file for this process until it is closed. Returns: False if another process
    holds it; True too where the file system has no locks, which a warning says."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        logger.warning("%s cannot be locked (%s); going on without", file.name, error)
    return True
