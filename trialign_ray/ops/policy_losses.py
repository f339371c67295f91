"""Losses of policy extraction: from log-probabilities of candidates to one loss per question.

The reference is the behaviour model; its log-probabilities are data, no gradient flows into them.
Log-ratio: log pi(a) - log pi_ref(a), both summed over the tokens of the utterance.

Shapes: B questions, K candidates (padded), ... any.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

ROUNDING = 1e-6
"""Relative difference of returns, in units of the largest (at least 1), that is float32 noise."""


def _masked_softmax_logits(logit_BK: Tensor, mask_BK: Tensor) -> Tensor:
    return torch.where(mask_BK, logit_BK, -math.inf).log_softmax(-1)


def _weighted_mean(value_BK: Tensor, weight_BK: Tensor) -> Tensor:
    """Mean over candidates by weight, shape (B,); 0 where all weights are 0."""
    total_B = weight_BK.sum(-1).clamp_min(torch.finfo(weight_BK.dtype).tiny)
    return (torch.where(weight_BK > 0, value_BK, 0.0) * weight_BK).sum(-1) / total_B


def weighted_cloning(logprob_BK: Tensor, length_BK: Tensor, weight_BK: Tensor) -> Tensor:
    """- sum_k w_k mean_t log pi(a_k,t), shape (B,): forward projection on w (ALGORITHM, section 6).

    Args: logprob_BK: sums over tokens. length_BK: tokens, 0 for padding. weight_BK: >= 0, any sum.
    """
    return -(weight_BK * logprob_BK / length_BK.clamp_min(1)).sum(-1)


def candidate_kl(logprob_BK: Tensor, reference_BK: Tensor, mask_BK: Tensor) -> Tensor:
    """KL(pi || pi_ref) of the two softmaxes over a question's candidates, nats, shape (B,)."""
    log_pi = _masked_softmax_logits(logprob_BK, mask_BK)
    log_ref = _masked_softmax_logits(reference_BK, mask_BK)
    terms = log_pi.exp() * (log_pi.masked_fill(~mask_BK, 0) - log_ref.masked_fill(~mask_BK, 0))
    return terms.sum(-1)


def listwise(log_ratio_BK: Tensor, prior_BK: Tensor, target_BK: Tensor, mask_BK: Tensor) -> Tensor:
    """Cross-entropy of softmax(log-ratio + log mu) to q, shape (B,) (ALGORITHM, section 6).

    The reweighted reference mu * pi / pi_ref is what pi would answer among these candidates.
    """
    log_prior = torch.where(mask_BK, prior_BK, 1.0).log()
    log_policy = _masked_softmax_logits(log_ratio_BK + log_prior, mask_BK)
    return -(target_BK * log_policy.masked_fill(~mask_BK, 0.0)).sum(-1)


def dpo(
    chosen_ratio: Tensor, rejected_ratio: Tensor, beta: float, margin: Tensor | float = 0.0
) -> Tensor:
    """-log sigmoid(beta (chosen - rejected log-ratio) - margin), elementwise; ln 2 at the start.

    Source: Rafailov et al. 2023, arXiv 2305.18290, eq. 7. The margin is that of MODPO (Zhou et al.
    2023, arXiv 2310.03708, eq. 11), 0 for plain DPO.
    """
    return -logsigmoid(beta * (chosen_ratio - rejected_ratio) - margin)


def ipo(
    chosen_ratio: Tensor, rejected_ratio: Tensor, beta: float, margin: Tensor | float = 0.0
) -> Tensor:
    """(chosen - rejected log-ratio - 1 / (2 beta) - margin / beta)^2, elementwise.

    Source: Azar et al. 2023, arXiv 2310.12036, eq. 17; log-ratios are sums over tokens, as there.
    """
    return (chosen_ratio - rejected_ratio - (0.5 + margin) / beta).square()


def kto(log_ratio: Tensor, desirable: Tensor, kl: Tensor, beta: float) -> Tensor:
    """1 - sigmoid(+-beta (log-ratio - z)), elementwise; + for desirable, - for undesirable.

    Source: Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8, lambda_D = lambda_U = 1.
    Args: kl: z >= 0, an estimate of KL(pi || pi_ref); no gradient flows into it.
    """
    advantage = beta * (log_ratio - kl.detach())
    return 1 - torch.sigmoid(torch.where(desirable, advantage, -advantage))


def clipped_ratio(
    log_ratio_BK: Tensor, length_BK: Tensor, advantage_BK: Tensor, weight_BK: Tensor, clip: float
) -> Tensor:
    """- sum_k w_k min(rho A, clip(rho, 1 - c, 1 + c) A), shape (B,).

    Source: GRPO, Shao et al. 2024, arXiv 2402.03300, eq. 3, with the length-normalised sequence
    ratio rho = exp(mean_t log-ratio) of GSPO, arXiv 2507.18071, eq. 7. Offline: the old policy is
    the reference throughout, so the clip bounds how far pi moves in all.
    """
    rho = torch.exp(torch.where(weight_BK > 0, log_ratio_BK, 0.0) / length_BK.clamp_min(1))
    bounded = rho.clamp(1 - clip, 1 + clip)
    return -_weighted_mean(torch.minimum(rho * advantage_BK, bounded * advantage_BK), weight_BK)


def group_advantages(value_BK: Tensor, weight_BK: Tensor) -> Tensor:
    """(r - mean) / std over a question's candidates by weight; 0 where all returns are equal.

    Source: GRPO, arXiv 2402.03300, section 4.1.2. Returns are equal if they differ by rounding
    alone: a standard deviation of 1e-8 made of rounding would become advantages of +-1.
    """
    centred = value_BK - _weighted_mean(value_BK, weight_BK).unsqueeze(-1)
    std = _weighted_mean(centred.square(), weight_BK).sqrt().unsqueeze(-1)
    largest = torch.where(weight_BK > 0, value_BK, 0.0).abs().amax(-1, keepdim=True)
    told = std > ROUNDING * largest.clamp_min(1.0)
    return torch.where((weight_BK > 0) & told, centred / std.clamp_min(ROUNDING), 0.0)


def direct_reward(log_ratio_BK: Tensor, value_BK: Tensor, weight_BK: Tensor, beta: float) -> Tensor:
    """sum_k mu_k (r - V - beta log-ratio)^2 / 2, shape (B,); V = beta log sum_k mu exp(r / beta).

    Source: DRO, Richemond et al. 2024, arXiv 2405.19107, eq. 4. V is the exact soft value over the
    logged candidates; the paper learns it with a network because it has one answer per prompt.
    """
    log_weight = torch.where(weight_BK > 0, weight_BK, 1.0).log()
    exponent = torch.where(weight_BK > 0, log_weight + value_BK / beta, -math.inf)
    total = weight_BK.sum(-1).clamp_min(torch.finfo(weight_BK.dtype).tiny).log()
    soft_value = beta * (exponent.logsumexp(-1) - total)
    residual = value_BK - soft_value.unsqueeze(-1) - beta * log_ratio_BK
    residual = torch.where(weight_BK > 0, residual, 0.0)  # before the square: no inf in gradients
    return _weighted_mean(residual.square() / 2, weight_BK)
