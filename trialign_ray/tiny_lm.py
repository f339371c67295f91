"""TruthWorld's tiny language models: the facts base that is shipped, and the behaviour model.

The dialogues come from `envs.truthworld.corpus`; the fitting is `supervised.fit_supervised`, run by
Ray Train's TorchTrainer in `actors/supervised_trainer.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envs.groups import Group, load_pack
from envs.prompts import CONTROL_PERSONAS
from envs.truthworld.corpus import Dialogue, behaviour_corpus, facts_corpus
from envs.truthworld.corruption import Corruption, draw_beliefs
from envs.truthworld.facts import load_facts, load_tastes
from envs.types import Question

SHIPPED_BASE = Path(__file__).parent.parent / "envs" / "truthworld" / "lm"


@dataclass(frozen=True)
class BaseRecipe:
    """How the shipped facts base was built: `trialign world build` runs exactly this."""

    hidden_size: int = 128
    num_layers: int = 2
    num_rumours: int = 8000
    epochs: float = 7.0
    batch_size: int = 64
    learning_rate: float = 3e-3
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
