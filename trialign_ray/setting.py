"""The setting of a run: questions with their split, groups, beliefs and judges."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from envs.groups import Group, load_pack
from envs.judge import Judge
from envs.preferences import CongenialScorer, StyleScorer, WeightedScorer
from envs.questions.jsonl import load_questions
from envs.truthworld.corruption import Beliefs, draw_beliefs
from envs.truthworld.facts import load_facts, load_tastes
from envs.types import Question, Split, reveal_gold, split_of
from trialign_ray.config import Config
from trialign_ray.errors import ConfigError

TASTE_WEIGHT = 0.3
"""Weight of the content in the preference score of a matter of taste."""


@dataclass(frozen=True)
class Setting:
    """`log_judge` is how raters of the log score (sycophantic with knob S); `judge` looks at style
    and truth alone and is what evaluation uses."""

    questions: tuple[Question, ...]
    groups: tuple[Group, ...]
    beliefs: Beliefs
    log_judge: Judge
    judge: Judge

    def of_split(self, split: Split) -> list[Question]:
        return [q for q in self.questions if q.split == split]

    def log_questions(self, label_fraction: float, seed: int) -> list[Question]:
        """The train questions, gold visible on the given share of those that have a truth."""
        return reveal_gold(self.of_split("train"), label_fraction, seed)


def build_setting(config: Config) -> Setting:
    """Raises: ConfigError or DataError, before anything is started."""
    groups = _groups(config)
    questions = _questions(config)
    beliefs = draw_beliefs(questions, groups, config.world.corruption, config.seed)
    style = StyleScorer({g.name: g.style for g in groups})
    return Setting(
        questions=tuple(questions),
        groups=tuple(groups),
        beliefs=beliefs,
        log_judge=Judge(_PreferenceOfRaters(style, beliefs, config.world.corruption.sycophancy)),
        judge=Judge(style),
    )


class _PreferenceOfRaters:
    """Style, plus what the group likes to hear: a taste always, a myth with knob S's weight."""

    def __init__(self, style: StyleScorer, beliefs: Beliefs, sycophancy: float):
        liked = CongenialScorer(beliefs.favourite)
        self._fact = WeightedScorer([(1 - sycophancy, style), (sycophancy, liked)])
        self._taste = WeightedScorer([(1 - TASTE_WEIGHT, style), (TASTE_WEIGHT, liked)])

    def score(self, group: str, question: Question, text: str, answer: str) -> float | None:
        scorer = self._fact if question.has_truth else self._taste
        return scorer.score(group, question, text, answer)


def _groups(config: Config) -> Sequence[Group]:
    pack = load_pack(config.world.groups).groups
    wanted = config.world.num_groups
    if wanted is None:
        return pack
    if wanted > len(pack):
        raise ConfigError(
            f"world.num_groups is {wanted}, but pack {config.world.groups!r} has {len(pack)} "
            "groups; lower it, or set it to null for all"
        )
    return pack[:wanted]


def _questions(config: Config) -> list[Question]:
    world = config.world
    questions: list[Question] = []
    for source in world.questions:
        own = source == "truthworld"
        questions += [*load_facts(), *load_tastes()] if own else load_questions(source)
    placed = [
        replace(q, split=split_of(q.id, world.train_fraction, world.validation_fraction))
        for q in questions
    ]
    for split, needed in (("train", 1), ("test", 2)):
        found = sum(q.split == split and q.has_truth for q in placed)
        if found < needed:
            raise ConfigError(
                f"{found} questions with a truth fall into the {split} split (of {len(placed)} in "
                f"{', '.join(world.questions)}), at least {needed} must; give more questions or "
                "change world.train_fraction"
            )
    return placed
