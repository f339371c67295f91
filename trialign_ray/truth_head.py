"""Stage 3b, the truth head: which canonical answer is true, seen from all groups at once.

A conditional logit over a question's answers and "none of these". Its input is joint, which is what
centralised training buys: from every group the reference log-probability of the answer, how often
it was given first and after hearing peers, and how often the group switched to or from it. So it
learns which groups are reliable, where a vote would count them alike.

Shapes: X questions, Z answers of a question (padded), F features, M members (folds x bootstrap).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trialign_ray.candidates import JointQuestion
from trialign_ray.config import CriticConfig

FEATURES_PER_GROUP = 5
HIDDEN = -1
logger = logging.getLogger(__name__)
ReferenceScore = Callable[[str, str, str], float]
"""(question id, group, text) -> sum of log-probabilities under the behaviour model."""


@dataclass(frozen=True)
class TruthEstimate:
    """Probability that an answer is true: mean and spread of members that never saw the question.

    mean_XZ, std_XZ: padded with 0. temperature: of the calibration. num_labels: questions that
    taught the head; with 0 the estimate is the groups' plain vote.
    """

    mean_XZ: Tensor
    std_XZ: Tensor
    temperature: float
    num_labels: int

    def pessimistic(self, xi: float) -> Tensor:
        """mean - xi * std, not below 0."""
        return (self.mean_XZ - xi * self.std_XZ).clamp_min(0.0)


def joint_features(
    questions: Sequence[JointQuestion], groups: Sequence[str], reference: ReferenceScore
) -> tuple[Tensor, Tensor]:
    """Features of every (question, answer), shape (X, Z, F), and which are real, shape (X, Z).

    An absent group contributes 0. F = 5 per group: log-probability of the answer among the
    question's answers, share at turn 0, share later, switched to, switched from.
    """
    width = max((len(q.answers) for q in questions), default=1) or 1
    features = torch.zeros(len(questions), width, len(groups) * FEATURES_PER_GROUP)
    mask = torch.zeros(len(questions), width, dtype=torch.bool)
    for x, question in enumerate(questions):
        mask[x, : len(question.answers)] = True
        if not question.answers:
            continue
        for g, group in enumerate(groups):
            if group in question.views:
                place = slice(g * FEATURES_PER_GROUP, (g + 1) * FEATURES_PER_GROUP)
                features[x, : len(question.answers), place] = _group_features(
                    question, group, reference
                )
    return features, mask


def _group_features(question: JointQuestion, group: str, reference: ReferenceScore) -> Tensor:
    """Features of every answer of a question from one group, shape (Z, 5)."""
    view = question.views[group]
    scores = [reference(question.id, group, view.restated(z)) for z in question.answers]
    logprob = torch.tensor(scores).log_softmax(0).clamp_min(-10.0) / 10
    shares = [
        [way.get(z, 0.0) for way in (view.first, view.later, view.switched_to, view.switched_from)]
        for z in question.answers
    ]
    return torch.cat([logprob.unsqueeze(-1), torch.tensor(shares)], -1)


def label_indices(questions: Sequence[JointQuestion], width: int) -> Tensor:
    """Index of the true answer; `width` for "none of these"; HIDDEN where gold is not visible."""
    labels = torch.full((len(questions),), HIDDEN)
    for x, question in enumerate(questions):
        if question.gold_visible and question.has_truth:
            true = question.true_answer
            labels[x] = question.answers.index(true) if true in question.answers else width
    return labels


def fit_truth_head(
    features_XZF: Tensor, mask_XZ: Tensor, labels_X: Tensor, config: CriticConfig, seed: int
) -> TruthEstimate:
    """The cross-fitted, calibrated estimate for every question.

    Members are trained on bootstrap samples of the labelled questions outside their fold. A
    labelled question is scored by its own fold's members alone, a hidden one by all. One
    temperature is fitted on the labelled questions' cross-fitted logits. Without labels: the mean
    of shares at turn 0 and later over the groups, uncalibrated.
    """
    labelled_X = labels_X != HIDDEN
    num_labels = int(labelled_X.sum())
    if num_labels < config.folds:
        logger.warning(
            "%d verified questions are too few for %d folds; answers are believed by plain vote, "
            "which a shared myth can win",
            num_labels,
            config.folds,
        )
        shares = features_XZF.unflatten(-1, (-1, FEATURES_PER_GROUP))[..., 1:3].mean((-1, -2))
        vote = shares / shares.sum(-1, keepdim=True).clamp_min(1e-9)
        return TruthEstimate(vote, torch.zeros_like(vote), 1.0, 0)
    generator = torch.Generator().manual_seed(seed)
    fold_X = torch.randint(config.folds, labels_X.shape, generator=generator)
    fold_M = torch.arange(config.folds).repeat_interleave(config.ensemble_size)
    draws = torch.randint(num_labels, (len(fold_M), num_labels), generator=generator)
    weight_ML = torch.zeros(len(fold_M), num_labels).scatter_add(1, draws, torch.ones(draws.shape))
    weight_ML = weight_ML * (fold_X[labelled_X].unsqueeze(0) != fold_M.unsqueeze(-1))
    logits_MXZ = _fit_members(features_XZF, mask_XZ, labels_X, labelled_X, weight_ML, config)
    own_MX = (fold_X.unsqueeze(0) == fold_M.unsqueeze(-1)) | ~labelled_X.unsqueeze(0)
    temperature = _fit_temperature(logits_MXZ, own_MX, labels_X, labelled_X)
    probability_MXZ = (logits_MXZ / temperature).softmax(-1)[..., :-1]
    weight_MX1 = own_MX.unsqueeze(-1).float()
    count_X1 = weight_MX1.sum(0)
    mean = (weight_MX1 * probability_MXZ).sum(0) / count_X1
    variance = (weight_MX1 * (probability_MXZ - mean).square()).sum(0) / count_X1
    return TruthEstimate(mean, variance.sqrt(), temperature, num_labels)


def _fit_members(
    features_XZF: Tensor,
    mask_XZ: Tensor,
    labels_X: Tensor,
    labelled_X: Tensor,
    weight_ML: Tensor,
    config: CriticConfig,
) -> Tensor:
    """Logits of all members, shape (M, X, Z + 1); the last column is "none of these"."""
    num_members, num_features = len(weight_ML), features_XZF.shape[-1]
    coefficients = torch.zeros(num_members, num_features, requires_grad=True)
    none_bias = torch.zeros(num_members, requires_grad=True)
    optimizer = torch.optim.Adam([coefficients, none_bias], lr=config.learning_rate)

    def logits(features: Tensor, mask: Tensor) -> Tensor:
        scores = torch.einsum("xzf,mf->mxz", features, coefficients)
        scores = scores.masked_fill(~mask, -1e9)
        none = none_bias.reshape(-1, 1, 1).expand(-1, scores.shape[1], 1)
        return torch.cat([scores, none], -1)

    features, mask = features_XZF[labelled_X], mask_XZ[labelled_X]
    target = labels_X[labelled_X].reshape(1, -1, 1).expand(num_members, -1, 1)
    total_M = weight_ML.sum(-1).clamp_min(1.0)
    for _ in range(config.steps):
        logprob_ML = logits(features, mask).log_softmax(-1).gather(-1, target).squeeze(-1)
        fit = -(weight_ML * logprob_ML).sum(-1) / total_M
        loss = (fit + config.weight_decay / 2 * coefficients.square().sum(-1)).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return logits(features_XZF, mask_XZ)


def _fit_temperature(
    logits_MXZ: Tensor, own_MX: Tensor, labels_X: Tensor, labelled_X: Tensor
) -> float:
    """The T > 0 of least negative log-likelihood (Guo et al. 2017, arXiv 1706.04599, sec. 4.2)."""
    grid = torch.logspace(-1, 1, 81)
    target = labels_X[labelled_X].reshape(1, -1, 1).expand(len(logits_MXZ), -1, 1)
    own = own_MX[:, labelled_X].float()
    losses = []
    for temperature in grid:
        logprob = (logits_MXZ[:, labelled_X] / temperature).log_softmax(-1).gather(-1, target)
        losses.append(-(own * logprob.squeeze(-1)).sum() / own.sum())
    return float(grid[int(torch.stack(losses).argmin())])
