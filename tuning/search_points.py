"""Points of a search space without a search algorithm: spread evenly, or on a grid."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from tuning.search_dimensions import Dimension

GRID_LEVELS = 3
"""Values per range on a grid, a choice has all of its own."""


def spread_points(
    dimensions: Sequence[Dimension], count: int, *, seed: int
) -> list[dict[str, Any]]:
    """Values by key of points that fill the space evenly: a scrambled Sobol sequence (Owen 1998,
    doi 10.1006/jcom.1998.0487), of which any beginning is spread too."""
    from scipy.stats import qmc

    if not dimensions or count < 1:
        return []
    sobol = qmc.Sobol(len(dimensions), rng=seed)
    shares = sobol.random_base2(math.ceil(math.log2(count)))[:count]
    return [
        {d.key: d.at(float(share)) for d, share in zip(dimensions, row, strict=True)}
        for row in shares
    ]


def grid_points(dimensions: Sequence[Dimension]) -> list[dict[str, Any]]:
    """Values by key of all combinations of the dimensions' levels."""
    levels = [d.levels(GRID_LEVELS) for d in dimensions]
    keys = [d.key for d in dimensions]
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*levels)]
