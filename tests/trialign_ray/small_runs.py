"""Small runs up to the report: a few facts that the shipped model knows, split in three."""

import json
import shutil
from pathlib import Path

from envs.truthworld.facts import load_facts, load_tastes
from tests.trialign_ray.runs import make_recipe, small_config
from trialign_ray.config import Config
from trialign_ray.run import Recipe
from trialign_ray.run_directory import RunDirectory

NUM_FACTS, NUM_TASTES = 60, 4


def write_questions(path: Path) -> Path:
    """Sixty facts and four matters of taste as JSONL."""
    facts = load_facts()
    chosen = [*facts[:: len(facts) // NUM_FACTS][:NUM_FACTS], *load_tastes()[:NUM_TASTES]]
    rows = [
        {
            "id": q.id,
            "text": q.text,
            "kind": q.kind,
            "gold": list(q.gold),
            "choices": list(q.choices),
            "verifier": q.verifier,
        }
        for q in chosen
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def small_run_config(folder: Path, *overrides: str) -> Config:
    """A third of the questions each for train, validation and test; few updates."""
    questions = folder / "questions.jsonl"
    if not questions.is_file():
        write_questions(questions)
    return small_config(
        f"world.questions={questions}",
        "world.train_fraction=0.4",
        "world.validation_fraction=0.3",
        "clone.steps=4",
        "collect.episodes_per_question=2",
        "evaluate.modes=[explicit]",
        *overrides,
    )


def run_to_report(folder: Path, config: Config, log_of: RunDirectory | None = None) -> Recipe:
    """Every stage without Ray, off-policy estimates included; the workers stay for the test.

    Args: log_of: a run whose log and reference scores are taken over.
    """
    recipe = make_recipe(folder, config, local=True)
    if log_of is not None:
        for name in ("dataset", "critic"):
            shutil.copytree(log_of.root / name, folder / name)
        for path in (folder / "critic").glob("*.json"):
            path.unlink()
    for stage in ("collect", "score", "solve", "clone", "off_policy", "evaluate", "report"):
        getattr(recipe, stage)()
    return recipe
