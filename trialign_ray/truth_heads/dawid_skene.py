"""Weighted consensus: groups that are right more often count more (Dawid and Skene 1979).

A group gives the true answer with probability r_g, otherwise one of the question's other answers,
all equally likely, independently of the other groups. Reliabilities and truths are found together
by expectation maximisation, with visible gold clamped. Where groups share a myth their errors are
not independent, and the model believes them: that is its limit, and why `joint` is the default.

Shapes: M members (folds x bootstrap), G groups, X questions, Z answers of a question (padded).
"""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from trialign_ray.config_sections import CriticConfig
from trialign_ray.truth_heads.crossfit import (
    combine_members,
    draw_folds,
    fit_temperature,
    own_members,
)
from trialign_ray.truth_heads.evidence import HIDDEN, TruthEstimate, TruthEvidence
from trialign_ray.truth_heads.majority import shares

MAX_ITERATIONS = 500
TOLERANCE = 1e-6
MIN_TEMPERATURE = 1.0
"""Calibration may soften, never sharpen: posteriors of groups taken for independent are too sure,
and a few labels that all come out right would make them certain."""
PRIOR_RIGHT = PRIOR_WRONG = 1.0
"""Pseudo-questions that every group got right and wrong: keeps reliabilities inside (0, 1)."""
PRIOR_NONE, PRIOR_SOME = 1.0, 9.0
"""Pseudo-questions of which no answer, or some answer, is true."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Consensus:
    """What EM found. logits_MXZ: log-posterior up to a constant, the last of Z + 1 columns is "none
    of these"; labels are not clamped in it. reliability_MG: r_g. none_M: share of questions without
    a true answer."""

    logits_MXZ: Tensor
    reliability_MG: Tensor
    none_M: Tensor


def estimate(evidence: TruthEvidence, config: CriticConfig, seed: int) -> TruthEstimate:
    """The cross-fitted consensus; its temperature is calibrated where labels suffice for it.

    A group has one opinion of a question, its shares at turn 0: its episodes repeat one belief, and
    later answers lean on peers, which the model of independent groups cannot hold. Members see
    bootstrap samples of the questions and no labels of their own fold. Matters of taste have no
    truth and say nothing about reliability.
    """
    labels_X = evidence.labels_X
    generator = torch.Generator().manual_seed(seed)
    fold_X, fold_M = draw_folds(labels_X, config.folds, config.ensemble_size, generator)
    num_members, num_questions = len(fold_M), len(labels_X)
    asked_X = torch.tensor([q.has_truth for q in evidence.questions]).double()
    draws = torch.randint(max(num_questions, 1), (num_members, num_questions), generator=generator)
    counts = torch.zeros(num_members, num_questions, dtype=torch.float64)
    weight_MX = asked_X * counts.scatter_add(1, draws, torch.ones_like(counts))
    clamped_MX = (labels_X != HIDDEN) & (fold_X.unsqueeze(0) != fold_M.unsqueeze(-1))
    found = fit_consensus(
        shares(evidence, "first"), evidence.answer_mask(), labels_X, clamped_MX, weight_MX
    )
    own_MX = own_members(labels_X, fold_X, fold_M)
    num_labels = int((labels_X != HIDDEN).sum())
    logits = found.logits_MXZ.float()
    enough = num_labels >= config.folds
    temperature = fit_temperature(logits, own_MX, labels_X) if enough else MIN_TEMPERATURE
    temperature = max(temperature, MIN_TEMPERATURE)
    return combine_members(logits, own_MX, temperature, num_labels)


def fit_consensus(
    share_GXZ: Tensor, mask_XZ: Tensor, labels_X: Tensor, clamped_MX: Tensor, weight_MX: Tensor
) -> Consensus:
    """Reliabilities and posteriors by EM from the vote, with the labels that a member may see.

    With s_gxz the share of z in what g said of x, s_gx = sum_z s_gxz, n_x = |Z_x| wrong answers
    that could be given (those logged, and one that nobody gave, less the true one):

        log p(z true | s) = sum_g s_gxz log r_g + (s_gx - s_gxz) log((1 - r_g) / n_x) + const
        r_g = sum_x w_x sum_z p_xz s_gxz / sum_x w_x s_gx

    Source: Dawid and Skene 1979, J. R. Stat. Soc. C 28(1), doi 10.2307/2346806; one parameter per
    group (one-coin), as every question has answers of its own. Shares in place of counts, Beta
    pseudo-counts, "none of these" and clamped labels are ours.
    Args: share_GXZ: abstentions left out. mask_XZ: False for padding. labels_X: as in the evidence.
        clamped_MX: labels that a member sees, bool. weight_MX: how often it sees a question.
    """
    share = share_GXZ.double()
    total_GX = share.sum(-1)
    known = _one_hot(labels_X, share.shape[-1] + 1)
    posterior = torch.where(clamped_MX.unsqueeze(-1), known, _vote(share))
    reliability = torch.zeros(len(weight_MX), len(share), dtype=share.dtype)
    for _ in range(MAX_ITERATIONS):
        before = reliability
        reliability, none = _maximise(posterior, share, total_GX, weight_MX)
        logits = _expect(reliability, none, share, total_GX, mask_XZ)
        posterior = torch.where(clamped_MX.unsqueeze(-1), known, logits.softmax(-1))
        if (reliability - before).abs().max() < TOLERANCE:
            return Consensus(logits, reliability, none)
    logger.warning("Dawid-Skene EM stopped after %d iterations, not converged", MAX_ITERATIONS)
    return Consensus(logits, reliability, none)


def _vote(share_GXZ: Tensor) -> Tensor:
    """The groups' mean shares as a first posterior, shape (X, Z + 1); "none of these" gets 0."""
    share_XZ = share_GXZ.sum(0)
    vote = share_XZ / share_XZ.sum(-1, keepdim=True).clamp_min(1e-9)
    return torch.nn.functional.pad(vote, (0, 1))


def _one_hot(labels_X: Tensor, width: int) -> Tensor:
    """The visible truth as a posterior, shape (X, width); rows of hidden questions mean nothing."""
    return torch.nn.functional.one_hot(labels_X.clamp_min(0), width).double()


def _maximise(
    posterior_MXZ: Tensor, share_GXZ: Tensor, total_GX: Tensor, weight_MX: Tensor
) -> tuple[Tensor, Tensor]:
    """Reliabilities, shape (M, G), and the share of questions with none of these, shape (M,)."""
    agreed_MGX = torch.einsum("mxz,gxz->mgx", posterior_MXZ[..., :-1], share_GXZ)
    right = PRIOR_RIGHT + torch.einsum("mx,mgx->mg", weight_MX, agreed_MGX)
    said = PRIOR_RIGHT + PRIOR_WRONG + torch.einsum("mx,gx->mg", weight_MX, total_GX)
    none = PRIOR_NONE + (weight_MX * posterior_MXZ[..., -1]).sum(-1)
    return right / said, none / (PRIOR_NONE + PRIOR_SOME + weight_MX.sum(-1))


def _expect(
    reliability_MG: Tensor, none_M: Tensor, share_GXZ: Tensor, total_GX: Tensor, mask_XZ: Tensor
) -> Tensor:
    """Log-posteriors up to a constant, shape (M, X, Z + 1)."""
    others_X = mask_XZ.sum(-1).clamp_min(1).to(share_GXZ.dtype)
    right_MG1 = reliability_MG.log().unsqueeze(-1)
    wrong_MGX = (1 - reliability_MG).log().unsqueeze(-1) - others_X.log()
    all_wrong_MX = torch.einsum("mgx,gx->mx", wrong_MGX, total_GX)
    gain_MXZ = torch.einsum("mgx,gxz->mxz", right_MG1 - wrong_MGX, share_GXZ)
    prior_MX = (1 - none_M).log().unsqueeze(-1) - others_X.log()
    answers = (all_wrong_MX + prior_MX).unsqueeze(-1) + gain_MXZ
    none = all_wrong_MX + none_M.log().unsqueeze(-1)
    return torch.cat([answers.masked_fill(~mask_XZ, -1e9), none.unsqueeze(-1)], -1)
