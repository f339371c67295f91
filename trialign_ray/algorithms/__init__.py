"""Algorithms by name, one short file each. Registered here, so that a reader sees them all."""

from trialign_ray.algorithms import (
    awr,
    consistency_only,
    dpo,
    dro,
    gr_dpo,
    group_dro,
    grpo,
    independent_ppo,
    ipo,
    kto,
    maxmin,
    modpo,
    pooled_dpo,
    sft,
    trialign,
    truth_sft,
)
from trialign_ray.algorithms.algorithm import Algorithm
from trialign_ray.errors import ConfigError

ALGORITHMS: dict[str, Algorithm] = {
    "trialign": trialign.ALGORITHM,
    "sft": sft.ALGORITHM,
    "truth_sft": truth_sft.ALGORITHM,
    "awr": awr.ALGORITHM,
    "dpo": dpo.ALGORITHM,
    "pooled_dpo": pooled_dpo.ALGORITHM,
    "ipo": ipo.ALGORITHM,
    "kto": kto.ALGORITHM,
    "gr_dpo": gr_dpo.ALGORITHM,
    "group_dro": group_dro.ALGORITHM,
    "maxmin": maxmin.ALGORITHM,
    "modpo": modpo.ALGORITHM,
    "dro": dro.ALGORITHM,
    "grpo": grpo.ALGORITHM,
    "consistency_only": consistency_only.ALGORITHM,
    "independent_ppo": independent_ppo.ALGORITHM,
}


def algorithm_by_name(name: str) -> Algorithm:
    """The algorithm of that name. Raises: ConfigError, listing the names there are."""
    if name not in ALGORITHMS:
        raise ConfigError(f"algorithm is {name!r}; expected one of {', '.join(sorted(ALGORITHMS))}")
    return ALGORITHMS[name]
