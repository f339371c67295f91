"""The setting of a run: questions with their split, groups, beliefs and judges."""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from envs.control_groups import control_groups
from envs.groups import Group, load_pack
from envs.judge import Judge
from envs.preferences import (
    CongenialScorer,
    PreferenceScorer,
    ToScore,
    WeightedScorer,
    prepare,
)
from envs.questions import load_source
from envs.truthworld.corruption import Beliefs, draw_beliefs
from envs.truthworld.facts import load_facts, load_tastes
from envs.types import Question, Split, reveal_gold, split_of, unit_hash
from trialign_ray.config import Config
from trialign_ray.errors import ConfigError
from trialign_ray.preference_scorers import build_scorer, explicit_prompts

NUM_GROUPS = 4
"""Of TruthWorld's twelve, unless the configuration says how many."""
TASTE_WEIGHT = 0.3
"""Weight of the content in the preference score of a matter of taste."""
NEEDED: Mapping[Split, int] = {"train": 1, "test": 2}
"""Questions with a truth that a run needs at least."""


@dataclass(frozen=True)
class Setting:
    """What a run is about, and who judges it.

    scorer: the configured preference. log_judge: how raters of the log score, sycophantic with knob
    S. judge: scorer and truth without myths; what evaluation uses. controls: neutral personas.
    """

    questions: tuple[Question, ...]
    groups: tuple[Group, ...]
    controls: tuple[Group, ...]
    beliefs: Beliefs
    scorer: PreferenceScorer
    log_judge: Judge
    judge: Judge

    def of_split(self, split: Split) -> list[Question]:
        return [q for q in self.questions if q.split == split]

    def log_questions(self, label_fraction: float, seed: int) -> list[Question]:
        """The train questions, gold visible on the given share of those that have a truth."""
        return reveal_gold(self.of_split("train"), label_fraction, seed)


def build_setting(
    config: Config, run_root: Path | None = None, needed: Mapping[Split, int] = NEEDED
) -> Setting:
    """Args: run_root: where scorers keep what they paid for; a folder for this once if None.
    needed: questions with a truth that each split must have at least.

    Raises: ConfigError or DataError, before anything is started.
    """
    pack = load_pack(config.world.groups)
    groups = _groups(config, pack.groups)
    questions = _questions(config, needed)
    if run_root is None and any(s.kind != "rules" for s in config.preferences):
        run_root = Path(tempfile.mkdtemp(prefix="trialign-"))
    prompt_of = explicit_prompts(groups)
    scorer = build_scorer(config.preferences, groups, prompt_of, run_root or Path())
    beliefs, log_judge = Beliefs({}, {}, {}), Judge(scorer)
    if config.behaviour.base == "truthworld":  # what other models believe is for an audit to find
        corruption = config.world.corruption
        beliefs = draw_beliefs(questions, groups, corruption, config.seed)
        log_judge = Judge(_PreferenceOfRaters(scorer, beliefs, corruption.sycophancy))
    return Setting(
        questions=tuple(questions),
        groups=tuple(groups),
        controls=_controls(config, groups, pack.controls),
        beliefs=beliefs,
        scorer=scorer,
        log_judge=log_judge,
        judge=Judge(scorer),
    )


class _PreferenceOfRaters:
    """Style, plus what the group likes to hear: a taste always, a myth with knob S's weight."""

    def __init__(self, style: PreferenceScorer, beliefs: Beliefs, sycophancy: float):
        liked = CongenialScorer(beliefs.favourite)
        self._fact = WeightedScorer([(1 - sycophancy, style), (sycophancy, liked)])
        self._taste = WeightedScorer([(1 - TASTE_WEIGHT, style), (TASTE_WEIGHT, liked)])
        self._style = style

    def prepare(self, items: Sequence[ToScore]) -> None:
        """Tells scorers that work in batches what they will be asked."""
        prepare(self._style, items)

    def score(self, group: str, question: Question, text: str, answer: str) -> float | None:
        scorer = self._fact if question.has_truth else self._taste
        return scorer.score(group, question, text, answer)


def _groups(config: Config, pack: Sequence[Group]) -> Sequence[Group]:
    wanted = config.world.num_groups
    if wanted is None:
        wanted = NUM_GROUPS if config.world.groups == "truthworld" else len(pack)
    if wanted > len(pack):
        raise ConfigError(
            f"world.num_groups is {wanted}, but pack {config.world.groups!r} has {len(pack)} "
            "groups; lower it"
        )
    return pack[:wanted]


def _controls(config: Config, groups: Sequence[Group], own: Sequence[Group]) -> tuple[Group, ...]:
    """The pack's own control personas where it has enough; TruthWorld's LM reads no others."""
    number = config.world.num_controls
    few = len(own) < number and config.behaviour.base != "truthworld"
    return control_groups(number, groups, () if few else own)


def _questions(config: Config, needed: Mapping[Split, int]) -> list[Question]:
    world = config.world
    questions: list[Question] = []
    for source in world.questions:
        own = source == "truthworld"
        found = [*load_facts(), *load_tastes()] if own else load_source(source, world.data_dir)
        if world.max_questions is not None:
            found = sorted(found, key=lambda q: unit_hash("chosen", q.id))[: world.max_questions]
        questions += found
    counts = Counter(q.id for q in questions)
    twice = [i for i, count in counts.items() if count > 1]
    if twice:
        raise ConfigError(
            f"question id {twice[0]!r} occurs {counts[twice[0]]} times in "
            f"{', '.join(world.questions)} ({len(twice)} such ids); name each source once and give "
            "every question an id of its own"
        )
    fractions = (world.train_fraction, world.validation_fraction)
    placed = [replace(q, split=split_of(q.family or q.id, *fractions)) for q in questions]
    for split, least in needed.items():
        found = sum(q.split == split and q.has_truth for q in placed)
        if found < least:
            raise ConfigError(
                f"{found} questions with a truth fall into the {split} split (of {len(placed)} in "
                f"{', '.join(world.questions)}), at least {least} must; give more questions or "
                "change world.train_fraction"
            )
    return placed
