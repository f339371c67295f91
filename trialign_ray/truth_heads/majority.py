"""The plain vote: every group counts alike, nothing is learned. A shared myth can win it.

Shapes: G groups, X questions, Z answers of a question (padded).
"""

import torch
from torch import Tensor

from trialign_ray.config_sections import CriticConfig
from trialign_ray.truth_heads.evidence import TruthEstimate, TruthEvidence


def estimate(evidence: TruthEvidence, config: CriticConfig, seed: int) -> TruthEstimate:
    """The groups' mean share of each answer, at turn 0 and later, normalised over the answers.

    Visible gold is not looked at. The answers' shares are no calibrated probabilities.
    """
    parts = [shares(evidence, "first"), shares(evidence, "later")]
    mean_XZ = torch.stack(parts, -1).permute(1, 2, 0, 3).mean((-1, -2))
    vote = mean_XZ / mean_XZ.sum(-1, keepdim=True).clamp_min(1e-9)
    return TruthEstimate(vote, torch.zeros_like(vote), 1.0, 0)


def shares(evidence: TruthEvidence, way: str) -> Tensor:
    """How often each group gave each answer, shape (G, X, Z); an absent group has 0.

    Args: way: which share of `candidates.GroupView`, such as `first` or `later`.
    """
    share = torch.zeros(len(evidence.groups), len(evidence.questions), evidence.width)
    for x, question in enumerate(evidence.questions):
        for g, group in enumerate(evidence.groups):
            if group in question.views:
                of_answer = getattr(question.views[group], way)
                for z, answer in enumerate(question.answers):
                    share[g, x, z] = of_answer.get(answer, 0.0)
    return share
