"""A fitted critic over few questions whose rewards are written down here."""

import torch

from trialign_ray.candidates import Candidate, GroupView, JointQuestion, borrow_peers
from trialign_ray.config import Config, CriticConfig, TargetsConfig
from trialign_ray.fitted_critic import FittedCritic
from trialign_ray.truth_heads import gather_evidence

GROUPS = ("a", "b")


def heard(*candidates: Candidate) -> GroupView:
    """A group that said these, all at the first turn."""
    total = sum(c.count for c in candidates)
    first = {c.answer: c.count / total for c in candidates}
    return GroupView("<user>Which?", candidates, first, {}, {}, {})


def said(answer: str, truth: float | None, personalization: float | None, count: int) -> Candidate:
    return Candidate(f"It is {answer}.", answer, truth, personalization, count)


def planted_questions() -> list[JointQuestion]:
    """A verified fact, a fact that is not, and a taste. On both facts a likes the falsehood."""
    verified = JointQuestion(
        "q0",
        "truth",
        True,
        ("myth", "true"),
        {
            "a": heard(said("myth", 0.0, 1.0, 3), said("true", 1.0, 0.0, 1)),
            "b": heard(said("true", 1.0, 0.5, 4)),
        },
    )
    hidden = JointQuestion(
        "q1",
        "truth",
        False,
        ("myth", "true"),
        {
            "a": heard(said("myth", None, 1.0, 3), said("true", None, 0.0, 1)),
            "b": heard(said("true", None, 0.5, 3), said("myth", None, None, 1)),
        },
    )
    taste = JointQuestion(
        "q2", "subjective", False, ("jazz",), {"a": heard(said("jazz", None, 1.0, 1))}
    )
    return [verified, hidden, taste]


def likely(question: str, group: str, text: str) -> float:
    """A behaviour model that finds long texts less likely."""
    return -float(len(text))


def planted_critic(
    targets: TargetsConfig | None = None, truth_head: str = "majority"
) -> FittedCritic:
    """The critic on `planted_questions`; peers' answers, where borrowed, suit a group by half."""
    config = Config(
        targets=targets or TargetsConfig(), critic=CriticConfig(truth_head=truth_head, pessimism=0)
    )
    questions = planted_questions()
    evidence = gather_evidence(questions, GROUPS, likely)
    return FittedCritic(
        config=config,
        groups=GROUPS,
        weights_G=torch.ones(2),
        questions=questions,
        borrowed=[borrow_peers(q, lambda group, text: 0.5) for q in questions],
        reference=likely,
        evidence=evidence,
        rows=[],
        seed=0,
    )
