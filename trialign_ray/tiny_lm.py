"""TruthWorld's tiny language models: the facts base that is shipped, and the behaviour model.

The dialogues come from `envs.truthworld.corpus`; the fitting is `supervised.fit_supervised`, run by
Ray Train's TorchTrainer in `actors/supervised_trainer.py`.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from envs.groups import Group, load_pack
from envs.prompts import CONTROL_PERSONAS, opening_messages
from envs.truthworld.corpus import Dialogue, behaviour_corpus, facts_corpus
from envs.truthworld.corruption import Corruption, draw_beliefs
from envs.truthworld.facts import load_facts, load_tastes
from envs.types import Question
from envs.verifiers import parse_answer, truth_of
from trialign_ray.actors.supervised_trainer import SupervisedJob, fit_here, run_supervised
from trialign_ray.errors import ConfigError, TrialignError
from trialign_ray.supervised_settings import SupervisedSettings

MAX_BASE_GAP = 0.02
"""Largest accuracy difference between groups that the facts base may have."""


@dataclass(frozen=True)
class BaseRecipe:
    """How the shipped facts base was built: `trialign world build` runs exactly this."""

    hidden_size: int = 128
    num_layers: int = 2
    num_rumours: int = 8000
    epochs: float = 9.0
    batch_size: int = 64
    learning_rate: float = 3e-3
    warmup_steps: int = 200
    seed: int = 0


def world_texts(questions: Sequence[Question], groups: Sequence[Group]) -> list[str]:
    """Every text that TruthWorld's language models must be able to read and say."""
    corpora: list[Dialogue] = facts_corpus(questions, groups, 4000, 0)
    beliefs = draw_beliefs(questions, groups, Corruption(), 0)
    corpora += behaviour_corpus(questions, groups, beliefs, Corruption(), 0.5, 0)
    texts = [m["content"] for d in corpora for m in d.messages]
    choices = sorted({c for q in questions for c in q.choices})
    return [*texts, *choices, *CONTROL_PERSONAS, " ".join(map(str, range(100)))]


def shipped_world() -> tuple[list[Question], tuple[Group, ...]]:
    """All questions and all twelve groups of TruthWorld."""
    return [*load_facts(), *load_tastes()], load_pack("truthworld").groups


def build_facts_base(
    out: Path,
    recipe: BaseRecipe,
    num_workers: int,
    world: tuple[Sequence[Question], Sequence[Group]] | None = None,
) -> dict[str, float]:
    """Trains the facts base into `out` by Ray Train; returns accuracy by group on all facts.

    Args: world: questions and groups; TruthWorld's own if None.
    Raises: ConfigError if `out` exists; TrialignError if the accuracy gap between groups is .02 or
    more, for then the base itself would be unfair.
    """
    from trialign_ray.language_model import new_llama, save_language_model, word_level_tokenizer

    if out.exists():
        raise ConfigError(f"{out} exists; give a folder that does not")
    questions, groups = world or shipped_world()
    work = out.with_name(f".{out.name}.building")
    tokenizer = word_level_tokenizer(world_texts(questions, groups))
    model = new_llama(tokenizer, recipe.hidden_size, recipe.num_layers, recipe.seed)
    save_language_model(model, tokenizer, work / "start")
    corpus = facts_corpus(questions, groups, recipe.num_rumours, recipe.seed)
    settings = SupervisedSettings(
        recipe.epochs,
        recipe.batch_size,
        recipe.learning_rate,
        recipe.seed,
        recipe.warmup_steps,
    )
    fit_on_dialogues(work / "start", corpus, settings, out, work, num_workers, num_threads=2)
    shutil.rmtree(work)
    accuracy = accuracy_by_group(out, questions, groups)
    gap = max(accuracy.values()) - min(accuracy.values())
    if gap >= MAX_BASE_GAP:
        raise TrialignError(
            f"accuracy of the facts base differs by {gap:.3f} between groups, expected less than "
            f"{MAX_BASE_GAP}; train longer"
        )
    return accuracy


def accuracy_by_group(
    folder: Path, questions: Sequence[Question], groups: Sequence[Group]
) -> dict[str, float]:
    """Share of all facts that a model tells every group rightly, greedily, explicit prompt."""
    from trialign_ray.engines import Decoding
    from trialign_ray.engines.transformers import TransformersEngine
    from trialign_ray.language_model import chat_text, load_language_model

    base = load_language_model(folder)
    engine = TransformersEngine(base.model, base.tokenizer)
    facts = [q for q in questions if q.has_truth]
    accuracy = {}
    for group in groups:
        prompts = [
            chat_text(base.tokenizer, opening_messages(q.text, "explicit", group)) for q in facts
        ]
        said = engine.generate(prompts, Decoding(0.0, 24, 256))
        right = [
            truth_of(parse_answer(u.text, q), q) == 1.0 for u, q in zip(said, facts, strict=True)
        ]
        accuracy[group.name] = sum(right) / len(right)
    return accuracy


def fit_on_dialogues(
    start: Path,
    corpus: Sequence[Dialogue],
    settings: SupervisedSettings,
    out: Path,
    work: Path,
    num_workers: int,
    num_threads: int,
    on_step: Callable[[int, int, float], None] | None = None,
) -> None:
    """Fits the model of `start` on `corpus` under Ray Train and saves it as `out`, complete or not
    at all. `work` holds what is in between; with 0 workers this process does it, without Ray."""
    shutil.rmtree(work / "model", ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(asdict(d)) + "\n" for d in corpus)
    (work / "dialogues.jsonl").write_text(lines, encoding="utf-8")
    job = SupervisedJob(
        model_dir=str(start),
        dialogues_file=str(work / "dialogues.jsonl"),
        out_dir=str(work / "model"),
        progress_file=str(work / "progress.jsonl"),
        settings=settings,
        num_threads=num_threads,
    )
    if num_workers == 0:
        fit_here(job, on_step)
    else:
        run_supervised(job, num_workers, work / "train", on_step)
    (work / "model").rename(out)
