"""A comparison's files with figures that are known: cells by what each group was told rightly.

Shapes: G groups, X questions.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trialign_ray.comparison.worlds import World

GROUPS = ("amber", "birch", "cedar")


def first_right(num_right: Sequence[int], num: int) -> np.ndarray:
    """0/1 by group, shape (G, num): group g is right on its first num_right[g] questions."""
    return (np.arange(num) < np.array(num_right)[:, None]).astype(int)


def plant_record(root: Path, **changes: Any) -> None:
    """comparison.json of two seeds of one world, without tuning."""
    record = {
        "knobs": ["A+S"],
        "tracks": ["T2"],
        "seeds": [0, 1],
        "methods": ["behaviour", "sft", "trialign"],
        "chosen": {},
        "tuning_world": None,
        "git_commit": "0123456789abcdef",
        "command": "trialign compare --methods behaviour,sft,trialign",
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "comparison.json").write_text(json.dumps(record | changes))


def plant_cell(
    root: Path,
    world: World,
    method: str,
    correct_GX: ArrayLike,
    *,
    setting: int = 0,
    style_GX: ArrayLike | None = None,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    answers_GX: ArrayLike | None = None,
    groups: Sequence[str] = GROUPS,
    heads: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a cell.json and returns its path. validation: (correct, style); as test if None."""
    correct = np.asarray(correct_GX)
    style = np.ones_like(correct) if style_GX is None else np.asarray(style_GX)
    checked, kept = map(np.asarray, validation or (correct, style))
    folder = root / "cells" / world.name / f"{method}.{setting}"
    tree = {
        "world": vars(world),
        "method": method,
        "setting": setting,
        "overrides": [f"seed={world.seed}"],
        "splits": {
            "validation": _split(checked, kept, answers_GX, groups),
            "test": _split(correct, style, answers_GX, groups),
        },
        "wall_s": 2.5,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cell.json").write_text(json.dumps(tree))
    if heads is not None:
        (folder / "critic").mkdir(exist_ok=True)
        (folder / "critic" / "report.json").write_text(json.dumps(heads))
    return folder / "cell.json"


def _split(
    correct_GX: np.ndarray,
    style_GX: np.ndarray,
    answers_GX: ArrayLike | None,
    groups: Sequence[str],
) -> dict[str, Any]:
    num = correct_GX.shape[1]
    by_group = correct_GX.mean(1)
    style = {"worst": float(style_GX.mean(1).min())}
    right = correct_GX.min(0)
    per_question = {
        "question_ids": [f"q{x}" for x in range(num)],
        "correct": dict(zip(groups, correct_GX.tolist(), strict=True)),
        "adherence": dict(zip(groups, style_GX.tolist(), strict=True)),
    }
    if answers_GX is not None:
        per_question["answer"] = dict(zip(groups, np.asarray(answers_GX).tolist(), strict=True))
    return {
        "truth": {
            "worst": float(by_group.min()),
            "mean": float(by_group.mean()),
            "gap": float(np.ptp(by_group)),
            "abstained": dict.fromkeys(groups, 0.0),
            "unparsed": {g: 0.1 * (i == 0) for i, g in enumerate(groups)},
        },
        "consistency": {
            "all_correct": float(right.mean()),
            "all_agree": float((correct_GX == correct_GX[0]).all(0).mean()),
            "agree_and_wrong": float(1 - correct_GX.max(0).mean()),
            "truth_given_known": float(right.sum() / max(1, correct_GX.max(0).sum())),
            "jsd": None,
            "ci": {"all_correct": [0.0, 1.0]},
        },
        "adherence": {"explicit": style, "implicit": {"worst": style["worst"] / 2}},
        "per_question": per_question,
    }
