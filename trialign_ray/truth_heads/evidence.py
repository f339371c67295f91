"""What a truth head may look at, and what it says: the interface that all heads share.

Shapes: X questions, Z answers of a question (padded). The column after the last answer, where a
head has one, stands for "none of these is true".
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trialign_ray.candidates import JointQuestion
from trialign_ray.config_sections import CriticConfig

HIDDEN = -1
ReferenceScore = Callable[[str, str, str], float]
"""(question id, group, text) -> sum of log-probabilities under the behaviour model."""


@dataclass(frozen=True)
class TruthEvidence:
    """The joint log as a truth head sees it.

    reference: log-probabilities under the behaviour model. labels_X: index of the true answer among
    the question's answers, the width Z for "none of these", HIDDEN where gold is not visible.
    gold: the canonical answers that are true, by question id, hidden questions included. It is for
    the oracle alone, None otherwise: no method may look at it.
    """

    questions: Sequence[JointQuestion]
    groups: Sequence[str]
    reference: ReferenceScore
    labels_X: Tensor
    gold: Mapping[str, Collection[str]] | None = None

    @property
    def width(self) -> int:
        """Z, at least 1."""
        return answer_width(self.questions)

    def answer_mask(self) -> Tensor:
        """Which (question, answer) is real and no padding, bool, shape (X, Z)."""
        mask = torch.zeros(len(self.questions), self.width, dtype=torch.bool)
        for x, question in enumerate(self.questions):
            mask[x, : len(question.answers)] = True
        return mask


@dataclass(frozen=True)
class TruthEstimate:
    """Probability that an answer is true: mean and spread of members that never saw the label.

    mean_XZ, std_XZ: padded with 0; a row is NaN where the head knows nothing of the question.
    temperature: of the calibration. num_labels: questions whose gold taught the head.
    """

    mean_XZ: Tensor
    std_XZ: Tensor
    temperature: float
    num_labels: int

    def pessimistic(self, xi: float) -> Tensor:
        """mean - xi * std, not below 0; NaN stays NaN."""
        return (self.mean_XZ - xi * self.std_XZ).clamp_min(0.0)


TruthHead = Callable[[TruthEvidence, CriticConfig, int], TruthEstimate]
"""(evidence, settings, seed) -> the estimate for every question."""


def gather_evidence(
    questions: Sequence[JointQuestion],
    groups: Sequence[str],
    reference: ReferenceScore,
    gold: Mapping[str, Collection[str]] | None = None,
) -> TruthEvidence:
    """The evidence of a log, with the labels that its visible gold gives."""
    labels = label_indices(questions, answer_width(questions))
    return TruthEvidence(questions, groups, reference, labels, gold)


def answer_width(questions: Sequence[JointQuestion]) -> int:
    """The largest number of answers of a question, at least 1."""
    return max((len(q.answers) for q in questions), default=1) or 1


def label_indices(questions: Sequence[JointQuestion], width: int) -> Tensor:
    """Index of the true answer; `width` for "none of these"; HIDDEN where gold is not visible."""
    labels = torch.full((len(questions),), HIDDEN)
    for x, question in enumerate(questions):
        if question.gold_visible and question.has_truth:
            true = question.true_answer
            labels[x] = question.answers.index(true) if true in question.answers else width
    return labels
