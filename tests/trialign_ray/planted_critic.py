"""A small log whose rewards are written down here: as tensors, and under a fitted critic."""

import math

import torch
from torch import Tensor

from trialign_ray.algorithms import algorithm_by_name
from trialign_ray.algorithms.algorithm import AlgorithmInput, Targets
from trialign_ray.candidates import Candidate, GroupView, JointQuestion, borrow_peers
from trialign_ray.config import Config
from trialign_ray.config_sections import CriticConfig, TargetsConfig
from trialign_ray.critic import CandidateTensors
from trialign_ray.fitted_critic import FittedCritic
from trialign_ray.truth_heads import gather_evidence

GROUPS = ("a", "b")
NAN = math.nan
BY_REWARD = [
    *("awr", "dpo", "pooled_dpo", "ipo", "kto", "gr_dpo", "group_dro", "maxmin", "dro", "grpo")
]
"""Algorithms that differ in loss and sharing alone."""

LOG = CandidateTensors(
    # Questions: a verified fact, a hidden fact, a taste. Group 1 was absent from the taste.
    reference_GXK=torch.tensor(
        [
            [[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [0.7, 0.3, 0.0]],
            [[1.0, 0.0, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 0.0]],
        ]
    ),
    truth_GXK=torch.tensor(
        [
            [[0.0, 1.0, 0.0], [NAN, NAN, NAN], [NAN, NAN, NAN]],
            [[1.0, NAN, NAN], [NAN, NAN, NAN], [NAN, NAN, NAN]],
        ]
    ),
    personalization_GXK=torch.tensor(
        [
            [[1.0, 0.2, 0.4], [1.0, 0.0, NAN], [0.2, 1.0, NAN]],
            [[0.5, NAN, NAN], [NAN, 0.5, NAN], [NAN, NAN, NAN]],
        ]
    ),
    answer_GXK=torch.tensor(
        [[[0, 1, 2], [0, 1, -1], [-1, -1, -1]], [[1, -1, -1], [0, 1, -1], [-1, -1, -1]]]
    ),
    mask_GXK=torch.tensor(
        [
            [[True, True, True], [True, True, False], [True, True, False]],
            [[True, False, False], [True, True, False], [False, False, False]],
        ]
    ),
    is_truth_X=torch.tensor([True, True, False]),
)


def solved(name: str, tensors: CandidateTensors = LOG, **config) -> Targets:
    """What the algorithm makes of the log under these settings of `targets`."""
    problem = AlgorithmInput(
        tensors, TargetsConfig(**config), torch.ones(len(tensors.reference_GXK)), seed=0
    )
    return algorithm_by_name(name).solve(problem)


def same(one: Tensor, other: Tensor) -> bool:
    """Equal up to float32 noise, NaN to NaN."""
    return torch.allclose(one.double(), other.double(), atol=1e-6, equal_nan=True)


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
