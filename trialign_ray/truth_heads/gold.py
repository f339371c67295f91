"""The two ends of the scale: a head that knows the visible gold alone, and one that knows all."""

import torch

from trialign_ray.config_sections import CriticConfig
from trialign_ray.errors import ConfigError
from trialign_ray.truth_heads.evidence import HIDDEN, TruthEstimate, TruthEvidence


def labels(evidence: TruthEvidence, config: CriticConfig, seed: int) -> TruthEstimate:
    """1 for the visible true answer, 0 for the others; NaN where the gold is hidden.

    NaN says "not known", which is not "false": a candidate without a known truth has none.
    """
    hidden_X = evidence.labels_X == HIDDEN
    columns = torch.arange(evidence.width)
    mean = (columns == evidence.labels_X.unsqueeze(-1)).float()
    mean[hidden_X] = torch.nan
    return TruthEstimate(mean, torch.zeros_like(mean), 1.0, int((~hidden_X).sum()))


def oracle(evidence: TruthEvidence, config: CriticConfig, seed: int) -> TruthEstimate:
    """1 for every true answer, hidden or not: an upper bound for analysis, never a method.

    Raises: ConfigError if the evidence holds no gold.
    """
    if evidence.gold is None:
        raise ConfigError(
            "critic.truth_head is 'oracle', which needs the hidden gold, and none was given; it is "
            "an upper bound for analysis, so choose another head for training"
        )
    mean = torch.zeros(len(evidence.questions), evidence.width)
    for x, question in enumerate(evidence.questions):
        accepted = evidence.gold.get(question.id, ())
        for z, answer in enumerate(question.answers):
            mean[x, z] = float(answer in accepted)
    return TruthEstimate(mean, torch.zeros_like(mean), 1.0, len(evidence.gold))
