"""Cross-fitting and calibration, shared by the heads that learn from labels.

A member is trained without the labels of one fold. A labelled question is scored by its own fold's
members alone, so no estimate has seen the label that it is compared with; a hidden one by all.

Shapes: M members (folds x bootstrap), X questions, Z answers (padded).
"""

import torch
from torch import Tensor

from trialign_ray.truth_heads.evidence import HIDDEN, TruthEstimate


def draw_folds(
    labels_X: Tensor, num_folds: int, ensemble_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The fold of every question, shape (X,), and of every member, shape (M,)."""
    fold_X = torch.randint(num_folds, labels_X.shape, generator=generator)
    fold_M = torch.arange(num_folds).repeat_interleave(ensemble_size)
    return fold_X, fold_M


def own_members(labels_X: Tensor, fold_X: Tensor, fold_M: Tensor) -> Tensor:
    """Which members may score which question, bool, shape (M, X)."""
    return (fold_X.unsqueeze(0) == fold_M.unsqueeze(-1)) | (labels_X == HIDDEN).unsqueeze(0)


def combine_members(
    logits_MXZ: Tensor, own_MX: Tensor, temperature: float, num_labels: int
) -> TruthEstimate:
    """Mean and spread of the members that may score a question.

    Args: logits_MXZ: Z + 1 columns, the last is "none of these". own_MX: of `own_members`.
    """
    probability_MXZ = (logits_MXZ / temperature).softmax(-1)[..., :-1]
    weight_MX1 = own_MX.unsqueeze(-1).float()
    count_X1 = weight_MX1.sum(0)
    mean = (weight_MX1 * probability_MXZ).sum(0) / count_X1
    variance = (weight_MX1 * (probability_MXZ - mean).square()).sum(0) / count_X1
    return TruthEstimate(mean, variance.sqrt(), temperature, num_labels)


def fit_temperature(logits_MXZ: Tensor, own_MX: Tensor, labels_X: Tensor) -> float:
    """The T > 0 of least negative log-likelihood of the labels, on logits that never saw them.

    Source: Guo et al. 2017, arXiv 1706.04599, sec. 4.2.
    """
    labelled_X = labels_X != HIDDEN
    grid = torch.logspace(-1, 1, 81)
    target = labels_X[labelled_X].reshape(1, -1, 1).expand(len(logits_MXZ), -1, 1)
    own = own_MX[:, labelled_X].float()
    losses = []
    for temperature in grid:
        logprob = (logits_MXZ[:, labelled_X] / temperature).log_softmax(-1).gather(-1, target)
        losses.append(-(own * logprob.squeeze(-1)).sum() / own.sum())
    return float(grid[int(torch.stack(losses).argmin())])
