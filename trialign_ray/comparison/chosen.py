"""Every method's setting, chosen on the validation split of one world by one score.

Shapes: G groups, X validation questions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trialign_ray.comparison.cell_results import BEHAVIOUR, CellResult, SplitResult, read_cell
from trialign_ray.comparison.cells import CELL_FILE
from trialign_ray.comparison.methods import Method
from trialign_ray.comparison.worlds import World
from trialign_ray.errors import DataError
from trialign_ray.guard import pair_disagreement
from trialign_ray.seeds import derive_seed
from trialign_ray.selection import Selection, SelectionRule, Trial, select

RULE = SelectionRule(
    penalty_weight=1.0, truth_margin=0.02, adherence_margin=0.02, require_gain=False
)
"""One rule for all methods, declared before anything is seen: Nash welfare of truth less one times
the inconsistency. 1 is the middle of the penalty weights that our own method may choose from; the
score is of the kind that it maximises, so read the tables for what it costs others. Margins of 2
points: one of some fifty validation questions. No sure gain is asked for, since every method has
its row, gain or not."""


def choose_settings(
    root: Path, tuning: World, methods: Sequence[Method]
) -> dict[str, dict[str, Any]]:
    """The setting of each method that has a choice to make, as it goes into `comparison.json`:
    index, reason, and every trial with its score, lower bound (lcb), gain over the behaviour
    model, and why it is excluded.

    The best lower bound among the settings that serve no group worse than the behaviour model; if
    each does, the best lower bound of all. Only validation questions are looked at. A method with
    one setting gets 0; one that takes over another's choice has no entry. What failed is in
    `missing`. Raises: DataError for a damaged result, or without the behaviour model's.
    """
    folder = root / "cells" / tuning.name
    return {m.name: _choice(folder, tuning, m) for m in methods if not m.tuned_as}


def _choice(folder: Path, tuning: World, method: Method) -> dict[str, Any]:
    if len(method.settings) < 2:
        return {"index": 0, "reason": "it has one setting", "missing": [], "trials": []}
    cells = {i: _cell(folder, method.name, i) for i in range(len(method.settings))}
    missing = [i for i, cell in cells.items() if cell is None]
    done = {i: cell for i, cell in cells.items() if cell is not None}
    if not done:
        reason = "no setting was finished; the first is taken unseen"
        return {"index": 0, "reason": reason, "missing": missing, "trials": []}
    baseline = _cell(folder, BEHAVIOUR, 0)
    if baseline is None:
        raise DataError(
            f"{folder / f'{BEHAVIOUR}.0' / CELL_FILE} does not exist, and settings are chosen by "
            f"the gain over it; add {BEHAVIOUR} to --methods, or use --no-tune"
        )
    trials = {f"{method.name}.{i}": i for i in done}
    selection = select(
        [_trial(cell, method.settings[i]) for i, cell in done.items()],
        _trial(baseline, ()),
        baseline.splits["validation"].groups,
        RULE,
        seed=derive_seed(tuning.seed, "comparison", "choose"),
    )
    taken = selection.winner if selection.beats_baseline else selection.trials[0]
    rows = [{"index": trials[t.trial.name], **t.as_row()} for t in selection.trials]
    return {
        "index": trials[taken.trial.name],
        "reason": _reason(selection),
        "missing": missing,
        "trials": rows,
    }


def _reason(selection: Selection) -> str:
    if selection.beats_baseline:
        return selection.reason
    best = selection.trials[0]
    return (
        f"every setting serves some group worse than the {BEHAVIOUR} model; {best.trial.name} has "
        f"the best lower bound, {best.lcb:.3f}"
    )


def _cell(folder: Path, method: str, setting: int) -> CellResult | None:
    path = folder / f"{method}.{setting}" / CELL_FILE
    return read_cell(path) if path.is_file() else None


def _trial(cell: CellResult, overrides: Sequence[str]) -> Trial:
    split = cell.splits["validation"]
    settings: Mapping[str, str] = dict(o.split("=", 1) for o in overrides)
    return Trial(
        f"{cell.method}.{cell.setting}",
        settings,
        split.correct_GX,
        split.adherence_GA,
        inconsistency_by_question(split),
    )


def inconsistency_by_question(split: SplitResult) -> NDArray[np.float64]:
    """Share of pairs of groups that are told different answers, shape (X,); 0 for one group.

    Where answers were not kept, right against wrong: a lower bound, two falsehoods look alike.
    """
    rows = split.correct_GX if split.answers is None else np.array(split.answers)
    return pair_disagreement(rows)
