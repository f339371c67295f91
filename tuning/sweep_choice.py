"""From a sweep's trials to one configuration per preference: chosen on validation, tested once."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trialign_ray.config import Config, to_yaml
from trialign_ray.run_trial import adopted_donor
from trialign_ray.targets_frontier import knee
from tuning.sweep_plan import METRICS, TrialRecord
from tuning.sweep_results import finished, objectives_of

MARGIN = 0.02
"""How far below the best, or below the behaviour model, a trial may be where a preference says
"within 2 points": the non-inferiority margin of all reports."""
ROUNDING = 1e-9
TEST_FILE = "test.json"
Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Preference:
    """What somebody may want. first: the metric to raise, among trials whose `kept` metric is at
    least `MARGIN` below its bar; None: any. Ties go to the later objectives, then to the trial that
    ended first."""

    name: str
    words: str
    first: str | None
    kept: str | None = None
    bar: str = "best"


PREFERENCES = (
    Preference(
        "truth",
        "highest worst-group truth with adherence within 2 points of the behaviour model's",
        "worst_truth",
        "worst_adherence",
        "behaviour",
    ),
    Preference(
        "all_correct", "most questions on which every group is told the truth", "all_correct"
    ),
    Preference(
        "style",
        "highest adherence of the worst group with its truth within 2 points of the best trial's",
        "worst_adherence",
        "worst_truth",
    ),
    Preference(
        "balanced",
        "the knee: from here on more truth costs the most adherence",
        None,
    ),
)
TIES = ("worst_truth", "all_correct", "worst_adherence", "mean_truth")


@dataclass(frozen=True)
class Choice:
    """A preference with the trial that serves it best on validation, or why none does. test: the
    trial's figures on the test split, empty before it was tested. file: its configuration."""

    preference: Preference
    record: TrialRecord | None
    reason: str = ""
    test: Metrics | None = None
    file: Path | None = None


def choose(records: Sequence[TrialRecord], behaviour: Metrics | None) -> list[Choice]:
    """The best finished trial for each preference, by validation alone.

    Args: behaviour: `METRICS` of the behaviour model on validation; None: not known.
    """
    done = [records[i] for i in finished(records)]
    return [_chosen(preference, done, behaviour) for preference in PREFERENCES]


def _chosen(
    preference: Preference, done: Sequence[TrialRecord], behaviour: Metrics | None
) -> Choice:
    if not done:
        return Choice(preference, None, "no trial was trained to its end")
    if preference.first is None:
        values_N2 = objectives_of(done)[:, [0, 2]]  # worst truth, worst adherence
        return Choice(preference, done[knee(values_N2)])
    allowed = list(done)
    if preference.kept is not None:
        best = max(r.metrics[preference.kept] for r in done)
        if preference.bar == "behaviour" and behaviour is None:
            return Choice(preference, None, "the behaviour model was not evaluated on validation")
        bar = best if preference.bar == "best" else (behaviour or {})[preference.kept]
        allowed = [r for r in done if r.metrics[preference.kept] >= bar - MARGIN - ROUNDING]
        if not allowed:
            reason = f"the bar is {bar - MARGIN:.3f}, the best trial has {best:.3f}"
            return Choice(preference, None, f"no trial keeps it: {reason}")
    order = (preference.first, *(m for m in TIES if m != preference.first))
    return Choice(preference, max(allowed, key=lambda r: _ranked(r, order)))


def _ranked(record: TrialRecord, order: Sequence[str]) -> tuple[float, ...]:
    values = (record.metrics.get(metric, math.nan) for metric in order)
    return (*(-math.inf if math.isnan(v) else v for v in values), -record.finished_at)


def once_on_test(
    record: TrialRecord, evaluate: Callable[[Path], Mapping[str, Metrics]]
) -> dict[str, dict[str, float]]:
    """`METRICS` on the test split by model: `aligned`, the trial's adapters, and `behaviour`. They
    are evaluated at most once in the trial's life: what was found is kept in its folder, and read
    ever after.

    Args: evaluate: of a run directory with exported adapters. Raises: what `evaluate` raises.
    """
    path = Path(record.folder) / TEST_FILE
    if not path.is_file():
        write_metrics(path, evaluate(Path(record.folder)))
    return read_metrics(path)


def write_best(choice: Choice, config: Config, root: Path) -> Path:
    """`best/<preference>.yaml`: the whole configuration of the chosen trial, and in comments why
    and how good; `trialign train` takes it. Returns its path."""
    record = choice.record
    assert record is not None, choice.reason
    head = [
        f"{choice.preference.name}: {choice.preference.words}",
        f"trial {record.trial_id}: {' '.join(record.overrides)}",
        f"validation: {figures(record.metrics)}",
    ]
    if choice.test:
        head.append(f"test, looked at once: {figures(choice.test)}")
    if (donor := adopted_donor(Path(record.folder))) is not None:
        head.append(
            f"these figures are of the adapters in {record.folder}, which took over the training "
            f"of trial {donor}; training from this file gives others"
        )
    path = root / "best" / f"{choice.preference.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"# {line}\n" for line in head) + to_yaml(config)
    _replace(path, text)
    return path


def figures(metrics: Metrics) -> str:
    """`METRICS` in one line."""
    return ", ".join(f"{name} {metrics[name]:.3f}" for name in METRICS if name in metrics)


def read_metrics(path: Path) -> dict[str, dict[str, float]]:
    """What `write_metrics` wrote; null is nan."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    return {
        model: {name: math.nan if value is None else value for name, value in values.items()}
        for model, values in tree.items()
    }


def write_metrics(path: Path, by_model: Mapping[str, Metrics]) -> None:
    """Figures by model as JSON, whole or not at all; nan is null."""
    tree = {
        model: {name: None if math.isnan(value) else float(value) for name, value in values.items()}
        for model, values in by_model.items()
    }
    _replace(path, json.dumps(tree, indent=1, allow_nan=False))


def _replace(path: Path, text: str) -> None:
    """The old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
