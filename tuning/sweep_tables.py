"""A sweep in the terminal: trials, the Pareto set, the best per preference, where the time went."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tuning.sweep_plan import OBJECTIVES, TrialRecord
from tuning.sweep_results import REFERENCE
from tuning.sweep_summary import SweepSummary

SYMBOLS = {
    "targets.penalty_weight": "lambda",
    "targets.kl_weight": "beta",
    "targets.welfare_exponent": "p",
    "critic.pessimism": "xi",
    "clone.learning_rate": "rate",
    "clone.lora_rank": "rank",
    "targets.truth_weight": "w_T",
    "targets.personalization_weight": "w_P",
}
"""Keys as tables and charts call them; others by their last part."""
TITLES = {
    "worst_truth": "worst truth",
    "all_correct": "all correct",
    "worst_adherence": "worst style",
}
SHORT = {"worst_truth": "truth", "all_correct": "all", "worst_adherence": "style"}
"""Titles for a terminal of 80 columns; a line below the tables says what they mean."""
MEANING = (
    "truth and style: of the worst-served group; all: questions on which every group is told the "
    "truth"
)
MAX_TRIALS = 40


def short_key(key: str) -> str:
    """What a column calls a key."""
    return SYMBOLS.get(key, key.rpartition(".")[2].replace("_", " "))


def shown(value: Any) -> str:
    """A value of the space, a dash where the trial did not read the key."""
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_of(record: TrialRecord, keys: Sequence[str]) -> str:
    """What a trial set, in one line."""
    return ", ".join(
        f"{short_key(k)} {shown(record.params[k])}" for k in keys if k in record.params
    )


def figure(metrics: Any, name: str) -> str:
    """A metric to three digits, a dash where there is none."""
    value = (metrics or {}).get(name)
    return "-" if value is None else f"{value:.3f}"


def keys_of(summary: SweepSummary) -> list[str]:
    """The keys that the sweep searched."""
    return [d.key for d in summary.space.dimensions]


def show_sweep(summary: SweepSummary, console: Console) -> None:
    """Prints all tables, failures by name, and where the page is."""
    console.print(trials_table(summary))
    console.print(front_table(summary))
    console.print(choices_table(summary))
    for line in [MEANING, *choice_lines(summary), *closing_lines(summary)]:
        console.print(line, highlight=False, soft_wrap=True)
    for record in summary.failed:
        first = (record.error or "no reason was left").splitlines()[0]
        console.print(
            f"failed: {record.trial_id}: {first} (log: {record.folder})",
            style="red",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"page: {summary.page}", highlight=False, soft_wrap=True)


def trials_table(summary: SweepSummary) -> Table:
    """Every trial, best worst-group truth first, with a star on the Pareto set."""
    front = {summary.records[i].trial_id for i in summary.pareto}
    ordered = sorted(summary.records, key=lambda r: -r.metrics.get("worst_truth", -1.0))
    keys = keys_of(summary)
    more = f", the best {MAX_TRIALS} are shown" if len(ordered) > MAX_TRIALS else ""
    table = _table(f"{len(ordered)} trials on validation (* no other beats it){more}")
    table.add_column("trial", no_wrap=True)
    table.add_column("settings", overflow="fold")
    _add_objectives(table)
    table.add_column("s", justify="right")
    table.add_column("", no_wrap=True)
    for record in ordered[:MAX_TRIALS]:
        mark = "*" if record.trial_id in front else "" if record.status == "done" else record.status
        table.add_row(
            record.trial_id,
            settings_of(record, keys),
            *(figure(record.metrics, name) for name in OBJECTIVES),
            f"{record.wall_s.get('total', 0.0):.0f}",
            mark,
        )
    return table


def front_table(summary: SweepSummary) -> Table:
    """The Pareto set alone, from most truth to most style."""
    records = [summary.records[i] for i in summary.pareto]
    table = _table(f"Pareto set: {len(records)} trials that no other beats in all three")
    table.add_column("settings", overflow="fold")
    _add_objectives(table)
    for record in sorted(records, key=lambda r: -r.metrics["worst_truth"]):
        table.add_row(
            settings_of(record, keys_of(summary)),
            *(figure(record.metrics, name) for name in OBJECTIVES),
        )
    if summary.behaviour is not None:
        figures = (figure(summary.behaviour, name) for name in OBJECTIVES)
        table.add_row("the behaviour model", *figures, style="dim")
    return table


def choices_table(summary: SweepSummary) -> Table:
    """The trial for each preference: validation, by which it was chosen, and test."""
    table = _table("Best per preference: chosen on validation, then tested once")
    table.add_column("preference", no_wrap=True)
    table.add_column("trial", no_wrap=True)
    for split in ("val.", "test"):
        for name in OBJECTIVES:
            table.add_column(f"{split}\n{SHORT[name]}", justify="right", no_wrap=True)
    for choice in summary.choices:
        if choice.record is not None:
            table.add_row(
                choice.preference.name,
                choice.record.trial_id,
                *(figure(choice.record.metrics, name) for name in OBJECTIVES),
                *(figure(choice.test, name) for name in OBJECTIVES),
            )
    if summary.behaviour is not None or summary.behaviour_test is not None:
        before = (figure(summary.behaviour, name) for name in OBJECTIVES)
        after = (figure(summary.behaviour_test, name) for name in OBJECTIVES)
        table.add_row("(behaviour model)", "-", *before, *after, style="dim")
    return table


def choice_lines(summary: SweepSummary) -> list[str]:
    """What each preference means, its file, or why no trial serves it."""
    return [
        f"{c.preference.name}: {c.preference.words}; {c.file or c.reason}" for c in summary.choices
    ]


def closing_lines(summary: SweepSummary) -> list[str]:
    """Volume and time."""
    reached = [volume for _, volume, _ in summary.volume[-1:]]
    return [
        *(f"hypervolume {volume:.4f} above {reference_words()}" for volume in reached),
        f"time: {summary.overhead.words()}",
    ]


def reference_words() -> str:
    """The point above which volume is measured."""
    return f"({', '.join(f'{value:g}' for value in REFERENCE)})"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left")


def _add_objectives(table: Table) -> None:
    for name in OBJECTIVES:
        table.add_column(SHORT[name], justify="right")
