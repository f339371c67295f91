"""The ranges that `trialign tune` ships, each with its reason; the default value lies inside."""

from typing import Any

RANGES: dict[str, dict[str, Any]] = {
    "targets.penalty_weight": {
        "loguniform": [0.01, 10],
        "zero_below": 0.03,
        "reason": "lambda, 1 by default; counts in ratios. As `trialign frontier`: .03 hardly "
        "moves the targets, at 10 all groups are told the same. 0, no penalty, is a sixth of draws",
    },
    "targets.kl_weight": {
        "loguniform": [0.01, 1],
        "reason": "beta, .05 by default; counts in ratios. At .01 the best candidate takes nearly "
        "everything, above 1 targets stay the log's own mixture",
    },
    "targets.welfare": {
        "choice": ["log_nash", "power_mean", "soft_min"],
        "reason": "the smooth operators: the default, a family from the mean to the worst player, "
        "and one that looks at the worst whatever the scale",
    },
    "targets.welfare_exponent": {
        "uniform": [-4, 1],
        "reason": "1 is the mean, 0 the Nash product, -4 nearly the worst player alone; above 1 "
        "inequality is rewarded, and refused",
    },
    "critic.pessimism": {
        "uniform": [0, 2],
        "reason": "xi, .5 by default: standard deviations taken off a believed truth. 0 trusts the "
        "truth head, at 2 only what all its members believe counts",
    },
    "clone.learning_rate": {
        "loguniform": [0.001, 0.02],
        "reason": ".005 by default; four times either way. LoRA learns little below, and unlearns "
        "the language above",
    },
    "clone.lora_rank": {
        "choice": [4, 8, 16],
        "reason": "8 by default; half and twice. lora_alpha stays, so that the scale falls as the "
        "rank grows: read it together with the learning rate",
    },
    "targets.players": {
        "choice": ["group_objectives", "groups"],
        "reason": "whether truth and style of a group are balanced by the welfare, or by weights",
    },
    "targets.truth_weight": {
        "loguniform": [0.05, 20],
        "reason": "w_T; the ratio to w_P alone counts: search one of them",
    },
    "targets.personalization_weight": {
        "loguniform": [0.05, 20],
        "reason": "w_P, beside w_T = 1: from style hardly counting to truth hardly counting",
    },
}
"""Range by key, as a YAML file of one's own gives it."""
PENALTIES = ("targets.penalty_weight", "targets.kl_weight")
SHIPPED: dict[str, tuple[str, ...]] = {
    "penalties": PENALTIES,
    "default": (
        *PENALTIES,
        "targets.welfare",
        "targets.welfare_exponent",
        "critic.pessimism",
        "clone.learning_rate",
    ),
    "all": tuple(key for key in RANGES if key != "targets.truth_weight"),
}
"""Spaces by name. A key that the configuration does not read is left out of them."""
