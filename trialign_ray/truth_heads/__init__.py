"""Stage 3b, truth heads: which canonical answer is true, seen from all groups at once.

One interface, chosen by `critic.truth_head`. Every head gets the same evidence; only the oracle
looks at hidden gold.
"""

import math
from collections.abc import Mapping

from trialign_ray.config_sections import CriticConfig
from trialign_ray.errors import ConfigError
from trialign_ray.truth_heads import dawid_skene, gold, joint, majority
from trialign_ray.truth_heads.evidence import (
    HIDDEN,
    ReferenceScore,
    TruthEstimate,
    TruthEvidence,
    TruthHead,
    gather_evidence,
    label_indices,
)

__all__ = [
    "HIDDEN",
    "TRUTH_HEADS",
    "Beliefs",
    "ReferenceScore",
    "TruthEstimate",
    "TruthEvidence",
    "TruthHead",
    "beliefs_by_head",
    "beliefs_of",
    "gather_evidence",
    "label_indices",
    "truth_head_by_name",
]

Beliefs = dict[str, dict[str, float | None]]
"""Question id -> answer -> probability that it is true; None where the head does not know."""
TRUTH_HEADS: dict[str, TruthHead] = {
    "joint": joint.estimate,
    "dawid_skene": dawid_skene.estimate,
    "majority": majority.estimate,
    "labels": gold.labels,
    "oracle": gold.oracle,
}


def truth_head_by_name(name: str) -> TruthHead:
    """The truth head of that name. Raises: ConfigError, listing the names there are."""
    if name not in TRUTH_HEADS:
        raise ConfigError(
            f"critic.truth_head is {name!r}; expected one of {', '.join(sorted(TRUTH_HEADS))}"
        )
    return TRUTH_HEADS[name]


def beliefs_of(evidence: TruthEvidence, estimate: TruthEstimate) -> Beliefs:
    """What an estimate says of every question that has a truth."""
    return {
        q.id: {
            answer: None if math.isnan(p) else p
            for answer, p in zip(q.answers, estimate.mean_XZ[x].tolist(), strict=False)
        }
        for x, q in enumerate(evidence.questions)
        if q.has_truth
    }


def beliefs_by_head(
    evidence: TruthEvidence,
    config: CriticConfig,
    seed: int,
    known: Mapping[str, TruthEstimate] | None = None,
) -> dict[str, Beliefs]:
    """What each head believes about every question; the oracle only if its estimate is given.

    Args: known: estimates of heads that need not be fitted again.
    """
    estimates = dict(known or {})
    for name, head in TRUTH_HEADS.items():
        if name not in estimates and name != "oracle":
            estimates[name] = head(evidence, config, seed)
    return {name: beliefs_of(evidence, e) for name, e in estimates.items()}
