"""Logs whose truth, and whose liars, are known because they were planted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from envs.types import Question
from trialign_ray.candidates import Candidate, GroupView, JointQuestion
from trialign_ray.config_sections import CriticConfig
from trialign_ray.critic_report import score_beliefs
from trialign_ray.truth_heads import (
    TruthEstimate,
    TruthEvidence,
    beliefs_of,
    gather_evidence,
    truth_head_by_name,
)

TRUE, WRONG, MYTH = "true", ("wrong a", "wrong b", "wrong c"), "wrong a"
SETTINGS = CriticConfig(steps=150)


def view(said: str, truth: float | None = None, later: str | None = None) -> GroupView:
    """A group that opens every episode with `said` and ends it with `later`."""
    end = later or said
    texts = sorted({said, end})
    candidates = tuple(Candidate(f"It is {z}.", z, truth, 1.0, 4) for z in texts)
    switched = {} if end == said else {end: 1.0}
    left = {} if end == said else {said: 1.0}
    return GroupView("prompt", candidates, {said: 1.0}, {end: 1.0}, switched, left)


def planted(
    error_rates: dict[str, float],
    num: int,
    num_labelled: int,
    *,
    false_consensus: float = 0.0,
    seed: int = 0,
) -> list[JointQuestion]:
    """Each group errs on its share of the questions, independently; the first is never misled.

    On the share `false_consensus` all groups but the first tell one myth. Every group hears the
    others: with probability 1/2 it ends with what most said.
    """
    random = Random(seed)
    groups = list(error_rates)
    questions = []
    for i in range(num):
        said = {
            g: random.choice(WRONG) if random.random() < e else TRUE for g, e in error_rates.items()
        }
        if random.random() < false_consensus:
            said |= dict.fromkeys(groups[1:], MYTH)
        most = Counter(said.values()).most_common(1)[0][0]
        later = {g: most if random.random() < 0.5 else said[g] for g in groups}
        visible = i < num_labelled
        questions.append(_question(f"q{i:04}", visible, said, later))
    return questions


def _question(
    name: str, visible: bool, said: dict[str, str], later: dict[str, str]
) -> JointQuestion:
    views = {}
    for g in said:
        own = view(said[g], None, later[g])
        candidates = [replace(c, truth=float(c.answer == TRUE)) for c in own.candidates]
        views[g] = replace(own, candidates=tuple(candidates)) if visible else own
    answers = tuple(sorted({*said.values(), *later.values()}))
    return JointQuestion(name, "truth", visible, answers, views)


def likely(question: str, group: str, text: str) -> float:
    """A behaviour model that finds everything equally likely."""
    return -1.0


def believe(
    head: str, questions: Sequence[JointQuestion], groups: Sequence[str], seed: int = 0
) -> tuple[TruthEvidence, TruthEstimate]:
    """What the head of that name makes of the log; the oracle is given the truth."""
    gold = {q.id: (TRUE,) for q in questions} if head == "oracle" else None
    evidence = gather_evidence(questions, groups, likely, gold)
    return evidence, truth_head_by_name(head)(evidence, SETTINGS, seed)


def scores(head: str, questions: Sequence[JointQuestion], groups: Sequence[str]) -> dict[str, Any]:
    """How the head fares on the questions whose gold it does not see."""
    evidence, estimate = believe(head, questions, groups)
    hidden = {q.id: Question(q.id, "?", gold=(TRUE,)) for q in questions if not q.gold_visible}
    return score_beliefs(beliefs_of(evidence, estimate), hidden)
