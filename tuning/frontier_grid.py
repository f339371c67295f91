"""Which settings of the central problem a frontier looks at: families x beta x lambda."""

import math
from collections.abc import Sequence
from typing import Any

from envs.errors import ConfigError

Settings = dict[str, Any]

FAMILIES: tuple[Settings, ...] = (
    *(
        {"players": "group_objectives", **welfare}
        for welfare in (
            {"welfare": "log_nash"},
            {"welfare": "power_mean", "welfare_exponent": 1.0},
            {"welfare": "power_mean", "welfare_exponent": 0.0},
            {"welfare": "power_mean", "welfare_exponent": -1.0},
            {"welfare": "power_mean", "welfare_exponent": -4.0},
            {"welfare": "soft_min", "welfare_temperature": 0.1},
            {"welfare": "gini"},
            {"welfare": "cvar", "welfare_level": 0.5},
            {"welfare": "maximin"},
        )
    ),
    *(
        {
            "players": "groups",
            "welfare": "log_nash",
            "truth_weight": truth,
            "personalization_weight": personalization,
        }
        for truth, personalization in ((0.0, 1.0), (0.25, 1.0), (1.0, 1.0), (1.0, 0.25), (1.0, 0.0))
    ),
    *(
        {"players": "groups", "truth_weight": 1.0, "personalization_weight": 1.0, **welfare}
        for welfare in (
            {"welfare": "power_mean", "welfare_exponent": -4.0},
            {"welfare": "soft_min", "welfare_temperature": 0.1},
            {"welfare": "gini"},
            {"welfare": "maximin"},
        )
    ),
)
"""Players, welfare and weights: what is wanted. lambda and beta say how much of it."""
KL_WEIGHTS = (5.0, 1.0, 0.2, 0.05, 0.01)
"""beta, from near the log to far from it."""
NUM_PENALTY_WEIGHTS = 7
PENALTY_RANGE = (0.03, 10.0)


def penalty_weights(count: int) -> list[float]:
    """0, then `count` - 1 values of lambda in equal ratios, rounded to three digits; count >= 3."""
    low, high = PENALTY_RANGE
    ratio = math.log(high / low) / (count - 2)
    return [0.0, *(float(f"{low * math.exp(i * ratio):.3g}") for i in range(count - 1))]


def default_grid(num_settings: int | None = None) -> list[Settings]:
    """Settings in a fixed order, neighbours beside each other.

    Args: num_settings: how many; more than there are by default makes lambda finer, fewer leaves
    some out, evenly. None: all by default, 630. Raises: ConfigError.
    """
    if num_settings is not None and num_settings < 1:
        raise ConfigError(f"{num_settings} settings to solve; expected at least 1")
    rows = len(FAMILIES) * len(KL_WEIGHTS)
    wanted = rows * NUM_PENALTY_WEIGHTS if num_settings is None else num_settings
    weights = penalty_weights(max(NUM_PENALTY_WEIGHTS, math.ceil(wanted / rows)))
    grid = [
        {**family, "kl_weight": kl_weight, "penalty_weight": penalty_weight}
        for family in FAMILIES
        for i, kl_weight in enumerate(KL_WEIGHTS)
        for penalty_weight in (weights if i % 2 == 0 else weights[::-1])
    ]
    return _evenly(grid, wanted)


def setting_name(settings: Settings) -> str:
    """A short name, unlike that of any other setting of a grid; fit for a folder."""
    parts = [settings.get("players", ""), settings.get("welfare", "")]
    marks = {
        "welfare_exponent": "p",
        "welfare_temperature": "t",
        "welfare_level": "a",
        "truth_weight": "wT",
        "personalization_weight": "wP",
        "kl_weight": "beta",
        "penalty_weight": "lambda",
    }
    parts += [f"{mark}{settings[key]:g}" for key, mark in marks.items() if key in settings]
    return "-".join(part for part in parts if part)


def _evenly(grid: Sequence[Settings], count: int) -> list[Settings]:
    return [grid[i * len(grid) // count] for i in range(count)]
