"""The joint head: a conditional logit on what all groups said and hold likely. The default.

A conditional logit over a question's answers and "none of these". Its input is joint, which is what
centralised training buys: from every group the reference log-probability of the answer, how often
it was given first and after hearing peers, and how often the group switched to or from it. So it
learns which groups are reliable, where a vote would count them alike.

Shapes: X questions, Z answers of a question (padded), F features, M members (folds x bootstrap).
"""

import logging

import torch
from torch import Tensor

from trialign_ray.candidates import JointQuestion
from trialign_ray.config_sections import CriticConfig
from trialign_ray.truth_heads import majority
from trialign_ray.truth_heads.crossfit import (
    combine_members,
    draw_folds,
    fit_temperature,
    own_members,
)
from trialign_ray.truth_heads.evidence import (
    HIDDEN,
    ReferenceScore,
    TruthEstimate,
    TruthEvidence,
)

FEATURES_PER_GROUP = 5
logger = logging.getLogger(__name__)


def joint_features(evidence: TruthEvidence) -> Tensor:
    """Features of every (question, answer), shape (X, Z, F), padded with 0.

    An absent group contributes 0. F = 5 per group: log-probability of the answer among the
    question's answers, share at turn 0, share later, switched to, switched from.
    """
    num_features = len(evidence.groups) * FEATURES_PER_GROUP
    features = torch.zeros(len(evidence.questions), evidence.width, num_features)
    for x, question in enumerate(evidence.questions):
        if not question.answers:
            continue
        for g, group in enumerate(evidence.groups):
            if group in question.views:
                place = slice(g * FEATURES_PER_GROUP, (g + 1) * FEATURES_PER_GROUP)
                features[x, : len(question.answers), place] = _group_features(
                    question, group, evidence.reference
                )
    return features


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


def estimate(evidence: TruthEvidence, config: CriticConfig, seed: int) -> TruthEstimate:
    """The cross-fitted, calibrated estimate for every question.

    Members are trained on bootstrap samples of the labelled questions outside their fold. One
    temperature is fitted on the labelled questions' cross-fitted logits. With fewer labels than
    folds the plain vote is believed, uncalibrated, with a warning.
    """
    labels_X = evidence.labels_X
    labelled_X = labels_X != HIDDEN
    num_labels = int(labelled_X.sum())
    if num_labels < config.folds:
        logger.warning(
            "%d verified questions are too few for %d folds; answers are believed by plain vote, "
            "which a shared myth can win",
            num_labels,
            config.folds,
        )
        return majority.estimate(evidence, config, seed)
    features_XZF = joint_features(evidence)
    generator = torch.Generator().manual_seed(seed)
    fold_X, fold_M = draw_folds(labels_X, config.folds, config.ensemble_size, generator)
    draws = torch.randint(num_labels, (len(fold_M), num_labels), generator=generator)
    weight_ML = torch.zeros(len(fold_M), num_labels).scatter_add(1, draws, torch.ones(draws.shape))
    weight_ML = weight_ML * (fold_X[labelled_X].unsqueeze(0) != fold_M.unsqueeze(-1))
    logits_MXZ = _fit_members(features_XZF, evidence.answer_mask(), labels_X, weight_ML, config)
    own_MX = own_members(labels_X, fold_X, fold_M)
    temperature = fit_temperature(logits_MXZ, own_MX, labels_X)
    return combine_members(logits_MXZ, own_MX, temperature, num_labels)


def _fit_members(
    features_XZF: Tensor,
    mask_XZ: Tensor,
    labels_X: Tensor,
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

    labelled_X = labels_X != HIDDEN
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
