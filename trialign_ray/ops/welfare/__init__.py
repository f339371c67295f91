"""Fairness-aware mixing operators: how returns of several groups become one number.

Every operator has `value(u_G)` = W(u) and `credit(u_G)` = dW/du, the weight that the centre gives
to each group's return. Weights are renormalised over the groups that are present; an absent group
is masked, never counted as 0.

Shapes: G players (groups, or groups x objectives).
"""

from collections.abc import Callable, Sequence

from trialign_ray.errors import ConfigError
from trialign_ray.ops.welfare.generalized_gini import (
    CVaRCurve,
    GeneralizedGini,
    GiniCurve,
    MaximinCurve,
    RankCurve,
)
from trialign_ray.ops.welfare.means import EPSILON, LogNash, PowerMean, SoftMin, extended_log
from trialign_ray.ops.welfare.protocol import Welfare, present_weights

__all__ = [
    "EPSILON",
    "WELFARES",
    "WELFARE_OPTIONS",
    "CVaRCurve",
    "GeneralizedGini",
    "GiniCurve",
    "LogNash",
    "MaximinCurve",
    "PowerMean",
    "RankCurve",
    "SoftMin",
    "Welfare",
    "extended_log",
    "present_weights",
    "welfare_by_name",
]

WELFARES: dict[str, Callable[..., Welfare]] = {
    "log_nash": LogNash,
    "power_mean": PowerMean,
    "generalized_gini": GeneralizedGini,
    "gini": GeneralizedGini.gini,
    "cvar": GeneralizedGini.cvar,
    "maximin": GeneralizedGini.maximin,
    "soft_min": SoftMin,
}

WELFARE_OPTIONS: dict[str, tuple[str, ...]] = {
    "log_nash": ("epsilon",),
    "power_mean": ("p", "epsilon"),
    "generalized_gini": ("omega",),
    "gini": (),
    "cvar": ("level",),
    "maximin": (),
    "soft_min": ("temperature",),
}
"""What each operator takes by name. The number of players is not among them: it follows from u."""


def welfare_by_name(name: str, **options: float | Sequence[float]) -> Welfare:
    """The operator of that name, with those options.

    Raises: ConfigError, listing the names there are, or the options where one is not taken.
    """
    if name not in WELFARES:
        raise ConfigError(
            f"targets.welfare is {name!r}; expected one of {', '.join(sorted(WELFARES))}"
        )
    unknown = sorted(set(options) - set(WELFARE_OPTIONS[name]))
    if unknown:
        raise ConfigError(
            f"welfare {name} takes no option {', '.join(unknown)}; it takes "
            f"{', '.join(WELFARE_OPTIONS[name]) or 'none'}"
        )
    return WELFARES[name](**options)
