"""A sweep as a whole: what tables and page show, and the files it leaves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from trialign_ray.config import load_config
from tuning.prescreen import Prescreened
from tuning.search_space import Space
from tuning.sweep_choice import Choice, Metrics, choose, once_on_test, write_best
from tuning.sweep_plan import SweepPlan, TrialRecord
from tuning.sweep_results import Overhead, pareto_set, volume_over_time, write_trials


@dataclass(frozen=True)
class SweepSummary:
    """What a sweep came to. behaviour: the behaviour model on validation, None where it was not
    asked; behaviour_test: on test."""

    root: Path
    plan: SweepPlan
    space: Space
    records: tuple[TrialRecord, ...]
    choices: tuple[Choice, ...]
    overhead: Overhead
    behaviour: Metrics | None = None
    behaviour_test: Metrics | None = None
    prescreened: Prescreened | None = None

    @property
    def page(self) -> Path:
        return self.root / "sweep.html"

    @cached_property
    def pareto(self) -> list[int]:
        """Places of trials that no other beats."""
        return pareto_set(self.records)

    @cached_property
    def volume(self) -> list[tuple[float, float, str]]:
        """Seconds, hypervolume, trial; in the order in which trials ended."""
        return volume_over_time(self.records)

    @property
    def failed(self) -> list[TrialRecord]:
        return [r for r in self.records if r.status == "failed"]


def chosen_and_tested(
    records: Sequence[TrialRecord],
    behaviour: Metrics | None,
    root: Path,
    evaluate: Callable[[Path], dict[str, dict[str, float]]],
) -> tuple[tuple[Choice, ...], Metrics | None]:
    """A trial for each preference, by validation alone, then tested, each trial once; with its
    configuration in `best/`. And the behaviour model on test, None if no trial was chosen."""
    choices, before = [], None
    for choice in choose(records, behaviour):
        if choice.record is not None:
            figures = once_on_test(choice.record, evaluate)
            before = figures["behaviour"]
            config = load_config(Path(choice.record.folder) / "config.yaml")
            tested = replace(choice, test=figures["aligned"])
            choice = replace(tested, file=write_best(tested, config, root))
        choices.append(choice)
    return tuple(choices), before


def write_sweep(summary: SweepSummary) -> None:
    """trials.parquet, trials.csv and sweep.html."""
    from tuning.sweep_page import sweep_page

    write_trials(summary.records, summary.root)
    summary.page.write_text(sweep_page(summary), encoding="utf-8")
