"""Policy extraction by name: what an adapter minimises, given targets and returns of candidates.

Shapes: B questions, K candidates (padded).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trialign_ray.config_sections import CloneConfig
from trialign_ray.errors import ConfigError
from trialign_ray.ops import policy_losses
from trialign_ray.ops.expectile import exp_weights

PAIR_MARGIN = 0.05
"""Least difference of returns, in units of return, that makes two candidates a preference pair."""
MAX_WEIGHT = 20.0
"""Largest weight of advantage-weighted regression, as in its paper."""
CLIP = 0.2
"""Half width of GRPO's trust region."""
EQUAL = 1e-4
"""Returns that differ by less are equal: rounding alone must not make an answer undesirable."""


@dataclass(frozen=True)
class CandidateBatch:
    """A batch as the model sees it (logprob_BK, with gradient) and as the log and centre gave it.

    target_BK: q, rows sum to 1. reference_BK: log-probabilities under the behaviour model.
    prior_BK: mu, how often each was logged. value_BK: returns, NaN where not known. margin_BK:
    second objective of MODPO, NaN where not known, 0 elsewhere. mask_BK: False for padding.
    """

    logprob_BK: Tensor
    length_BK: Tensor
    target_BK: Tensor
    reference_BK: Tensor
    prior_BK: Tensor
    value_BK: Tensor
    margin_BK: Tensor
    mask_BK: Tensor

    @property
    def log_ratio_BK(self) -> Tensor:
        return torch.where(self.mask_BK, self.logprob_BK - self.reference_BK, 0.0)

    @property
    def known_BK(self) -> Tensor:
        return self.mask_BK & ~self.value_BK.isnan()

    @property
    def known_value_BK(self) -> Tensor:
        return torch.where(self.known_BK, self.value_BK, 0.0)

    @property
    def known_prior_BK(self) -> Tensor:
        return torch.where(self.known_BK, self.prior_BK, 0.0)


Extraction = Callable[[CandidateBatch, CloneConfig], Tensor]
"""One loss per question, shape (B,)."""


def pair_mask(value_BK: Tensor, known_BK: Tensor) -> Tensor:
    """Which candidate (row) is preferred to which (column), bool, shape (B, K, K).

    The best ones, ties included, are preferred to all that are worse by more than PAIR_MARGIN.
    """
    ranked = torch.where(known_BK, value_BK, -torch.inf)
    best_B1 = ranked.amax(-1, keepdim=True)
    best_BK = known_BK & (ranked == best_B1)
    worse_BK = known_BK & (ranked < best_B1 - PAIR_MARGIN)
    return best_BK.unsqueeze(-1) & worse_BK.unsqueeze(-2)


def _clone(batch: CandidateBatch, config: CloneConfig) -> Tensor:
    return policy_losses.weighted_cloning(batch.logprob_BK, batch.length_BK, batch.target_BK)


def _listwise(batch: CandidateBatch, config: CloneConfig) -> Tensor:
    return policy_losses.listwise(
        batch.log_ratio_BK, batch.prior_BK, batch.target_BK, batch.mask_BK
    )


def _awr(batch: CandidateBatch, config: CloneConfig) -> Tensor:
    prior = batch.known_prior_BK
    prior = prior / prior.sum(-1, keepdim=True).clamp_min(1e-9)
    value = batch.known_value_BK
    advantage = value - (prior * value).sum(-1, keepdim=True)
    weight = prior * exp_weights(advantage, config.temperature, MAX_WEIGHT)
    return policy_losses.weighted_cloning(batch.logprob_BK, batch.length_BK, weight)


def _over_pairs(batch: CandidateBatch, loss: Callable[..., Tensor]) -> Tensor:
    """Mean of a pair loss over the pairs (best, worse) of every question; 0 without a pair.

    A pair has no margin where the second objective of either is not known.
    """
    pairs_BKK = pair_mask(batch.known_value_BK, batch.known_BK)
    chosen, rejected = batch.log_ratio_BK.unsqueeze(-1), batch.log_ratio_BK.unsqueeze(-2)
    margin = (batch.margin_BK.unsqueeze(-1) - batch.margin_BK.unsqueeze(-2)).nan_to_num()
    terms = torch.where(pairs_BKK, loss(chosen, rejected, margin=margin), 0.0)
    return terms.sum((-2, -1)) / pairs_BKK.sum((-2, -1)).clamp_min(1)


def _dpo(batch: CandidateBatch, config: CloneConfig) -> Tensor:
    return _over_pairs(batch, partial(policy_losses.dpo, beta=config.pair_beta))


def _ipo(batch: CandidateBatch, config: CloneConfig) -> Tensor:
    return _over_pairs(batch, partial(policy_losses.ipo, beta=config.pair_beta))


def _kto(batch: CandidateBatch, config: CloneConfig) -> Tensor:
    """Desirable: above the question's mean return; undesirable: below it. What is at the mean, as
    all are where returns are equal, teaches nothing. z: the batch's KL over candidates."""
    prior, value = batch.known_prior_BK, batch.known_value_BK
    mean = (prior * value).sum(-1, keepdim=True) / prior.sum(-1, keepdim=True).clamp_min(1e-9)
    kl = policy_losses.candidate_kl(batch.logprob_BK, batch.reference_BK, batch.mask_BK).mean()
    loss = policy_losses.kto(batch.log_ratio_BK, value > mean, kl, config.pair_beta)
    told = batch.known_BK & ((value - mean).abs() > EQUAL)
    return torch.where(told, loss, 0.0).sum(-1) / told.sum(-1).clamp_min(1)


def _grpo(batch: CandidateBatch, config: CloneConfig) -> Tensor:
    weight = batch.known_prior_BK
    advantage = policy_losses.group_advantages(batch.known_value_BK, weight)
    return policy_losses.clipped_ratio(batch.log_ratio_BK, batch.length_BK, advantage, weight, CLIP)


def _direct_reward(batch: CandidateBatch, config: CloneConfig) -> Tensor:
    return policy_losses.direct_reward(
        batch.log_ratio_BK, batch.known_value_BK, batch.known_prior_BK, config.pair_beta
    )


EXTRACTIONS: dict[str, Extraction] = {
    "clone": _clone,
    "listwise": _listwise,
    "awr": _awr,
    "dpo": _dpo,
    "ipo": _ipo,
    "kto": _kto,
    "grpo": _grpo,
    "dro": _direct_reward,
}
DEFAULT_EXTRACTION = "clone"
PAIRWISE = frozenset({"dpo", "ipo"})
"""Extractions that learn from pairs: a question without a pair teaches them nothing."""


def extraction_by_name(name: str | None) -> Extraction:
    """The loss of that name, the default one if None. Raises: ConfigError, listing the names."""
    name = DEFAULT_EXTRACTION if name is None else name
    if name not in EXTRACTIONS:
        raise ConfigError(
            f"clone.extraction is {name!r}; expected one of {', '.join(sorted(EXTRACTIONS))}"
        )
    return EXTRACTIONS[name]
