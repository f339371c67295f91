"""Stage 3c, the critic: from the joint log to returns of candidates, ready for the central problem.

One turn needs no bootstrapping: Q = r. The truth of a candidate is the gold where it is visible and
the truth head's pessimistic estimate elsewhere.

Shapes: J objectives (truth, personalization), G groups, X questions, K candidates (padded), Z
answers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trialign_ray.candidates import NO_ANSWERS, Candidate, JointQuestion
from trialign_ray.truth_heads import TruthEstimate

PSEUDO_COUNT = 0.5
"""Added to every candidate's count in the log (Krichevsky and Trofimov 1981)."""


@dataclass(frozen=True)
class CandidateTensors:
    """The log as tensors. truth_GXK and personalization_GXK are in [0, 1], NaN where not known."""

    reference_GXK: Tensor
    truth_GXK: Tensor
    personalization_GXK: Tensor
    answer_GXK: Tensor
    mask_GXK: Tensor
    is_truth_X: Tensor


def candidate_tensors(
    questions: Sequence[JointQuestion],
    groups: Sequence[str],
    estimate: TruthEstimate,
    pessimism: float,
) -> CandidateTensors:
    """Returns, answers and the reference distribution of every candidate.

    The reference mu is how often the group logged the utterance, over all turns: the policy of the
    dialogue, in which a second thought already counts. Counts are smoothed by adding 1/2
    (Krichevsky and Trofimov 1981), which also gives borrowed candidates their share.
    """
    width = max((len(v.candidates) for q in questions for v in q.views.values()), default=1) or 1
    shape = (len(groups), len(questions), width)
    truth, personalization = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
    reference = torch.zeros(shape)
    answer = torch.full(shape, -1)
    head_XZ = estimate.pessimistic(pessimism)
    for x, question in enumerate(questions):
        ids = {z: i for i, z in enumerate((*question.answers, *NO_ANSWERS))}
        for g, group in enumerate(groups):
            view = question.views.get(group)
            for k, candidate in enumerate(view.candidates if view else ()):
                reference[g, x, k] = candidate.count + PSEUDO_COUNT
                answer[g, x, k] = ids[candidate.answer] if question.has_truth else -1
                if candidate.personalization is not None:
                    personalization[g, x, k] = candidate.personalization
                if question.has_truth:
                    truth[g, x, k] = _truth(candidate, question, head_XZ[x])
    return CandidateTensors(
        reference_GXK=reference / reference.sum(-1, keepdim=True).clamp_min(PSEUDO_COUNT),
        truth_GXK=truth,
        personalization_GXK=personalization,
        answer_GXK=answer,
        mask_GXK=reference > 0,
        is_truth_X=torch.tensor([q.has_truth for q in questions]),
    )


def _truth(candidate: Candidate, question: JointQuestion, head_Z: Tensor) -> float:
    if candidate.truth is not None:
        return candidate.truth
    if bool(head_Z.isnan().all()):
        return math.nan
    if candidate.answer in NO_ANSWERS:
        return 0.0
    return float(head_Z[question.answers.index(candidate.answer)])


def objective_values(tensors: CandidateTensors) -> Tensor:
    """Truth and personalization as two objectives, shape (2, G, X, K).

    Each is scaled so that its mean over a group's questions is the mean over those questions where
    it is known: a matter of taste has no truth, and must not count as a false answer.
    """
    return torch.stack(
        [
            _known_mean(tensors.truth_GXK, tensors.mask_GXK),
            _known_mean(tensors.personalization_GXK, tensors.mask_GXK),
        ]
    )


def known_objectives(tensors: CandidateTensors) -> Tensor:
    """Which objective is known of which group at all, bool, shape (2, G)."""
    values = torch.stack([tensors.truth_GXK, tensors.personalization_GXK])
    return (~values.isnan() & tensors.mask_GXK).any(-1).any(-1)


def weighted_values(tensors: CandidateTensors, truth_weight: float, pers_weight: float) -> Tensor:
    """One return per candidate, (w_T T + w_P P) / (w_T + w_P), shape (G, X, K).

    What is not known counts 0: it is unknown of all answers to a question alike, so that it ranks
    none, and a small w_P stays small where no truth is verified.
    """
    parts = ((truth_weight, tensors.truth_GXK), (pers_weight, tensors.personalization_GXK))
    total = torch.stack([w * torch.nan_to_num(v) for w, v in parts]).sum(0)
    return total / max(truth_weight + pers_weight, 1e-9)


def _known_mean(value_GXK: Tensor, mask_GXK: Tensor) -> Tensor:
    known_GX = (~value_GXK.isnan() & mask_GXK).any(-1)
    num_known = known_GX.sum(-1, keepdim=True).clamp_min(1)
    scale_G1 = mask_GXK.any(-1).sum(-1, keepdim=True) / num_known
    return torch.nan_to_num(value_GXK) * scale_G1.unsqueeze(-1)
