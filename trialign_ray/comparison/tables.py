"""The comparison in a terminal of 100 columns, as rich tables; `markdown` is its committed form."""

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from trialign_ray.comparison.analysis import Analysis, Section, analyse, compact_rows
from trialign_ray.comparison.markdown import markdown
from trialign_ray.comparison.methods import OURS
from trialign_ray.comparison.results import Results
from trialign_ray.comparison.rows import Row
from trialign_ray.comparison.words import (
    NONE,
    compact_cell,
    difference,
    front_sentence,
    mark,
    missing_lines,
    rival_sentences,
    share,
    short_settings,
    trial_of,
)

__all__ = ["markdown", "terminal"]
COLUMNS_AT_ONCE = 7
"""Worlds side by side in a compact table."""
NARROW = 98
"""Columns that a table may have."""


def terminal(source: Results | Analysis) -> list[Table]:
    """The tables in the order of reading: main rows, their ablations, other worlds, truth heads,
    sweeps, settings, and what is not finished."""
    analysis = analyse(source)
    tables = []
    for section in analysis.main:
        sentences = [*rival_sentences(section), front_sentence(section)]
        tables.append(_rows_table(section, "methods", section.rows, sentences))
        if section.ablations:
            tables.append(_rows_table(section, "ablations and options", section.ablations, []))
        if section.heads:
            tables.append(_heads_table(section))
    others = analysis.secondary
    for i in range(0, len(others), COLUMNS_AT_ONCE):
        tables.append(_compact_table(analysis, others[i : i + COLUMNS_AT_ONCE]))
    tables += [_sweeps_table(analysis)] if analysis.sweeps else []
    tables += [_choices_table(analysis)] if analysis.choices else []
    missing = missing_lines(analysis)
    tables += [_list_table(_not_finished(analysis), missing)] if missing else []
    return tables + ([_list_table("to know", analysis.notes)] if analysis.notes else [])


def _not_finished(analysis: Analysis) -> str:
    return f"not finished, missing from all figures: {len(analysis.not_finished)} cells"


def _table(title: str, left: Sequence[str], right: Sequence[str], caption: str = "") -> Table:
    table = Table(
        title=escape(title),
        title_justify="left",
        caption=escape(caption) or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        min_width=min(len(title) + 2, NARROW),
    )
    for i, name in enumerate(left):
        table.add_column(name, overflow="fold", no_wrap=i == 0 and bool(right))
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _rows_table(
    section: Section, what: str, rows: Sequence[Row], sentences: Sequence[str]
) -> Table:
    title = f"{section.name}, {what}: worst group's truth and style on test, {_seeds(section)}"
    numbers = ("truth", "all\nright", "agree,\nwrong", "style", "calls", f"{OURS} - it [95 %]")
    table = _table(title, ("method",), numbers, "\n".join(sentences))
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_row(
            escape(row.method.name),
            share(row.truth.mean),
            share(row.all_correct),
            share(row.agree_and_wrong),
            share(row.style.mean if row.style else None) + ("" if row.keeps_style else " lost"),
            str(row.calls),
            escape(difference(row.versus.truth if row.versus else None)),
            mark(row),
            style=_style(row),
        )
    return table


def _style(row: Row) -> str:
    if row.method.name == OURS:
        return "bold"
    return "yellow" if row.marked else ""


def _seeds(section: Section) -> str:
    return "one seed" if len(section.seeds) == 1 else f"mean over {len(section.seeds)} seeds"


def _compact_table(analysis: Analysis, sections: Sequence[Section]) -> Table:
    legend = f"= ties {OURS} (or one seed, no worse), > beats it, ~ style lost"
    title = "other worlds: worst group's truth"
    table = _table(title, ("method",), [s.name for s in sections], legend)
    for method, rows in compact_rows(analysis, sections):
        table.add_row(escape(method.name), *map(compact_cell, rows))
    return table


def _heads_table(section: Section) -> Table:
    title = f"{section.name}, truth heads on facts whose gold they never saw"
    table = _table(title, ("head",), ("accuracy", "Brier", "ECE", "log loss", "seeds"))
    for line in section.heads:
        figures = (line.accuracy, line.brier, line.ece, line.log_loss)
        table.add_row(escape(line.head), *map(share, figures), str(line.num_seeds))
    return table


def _sweeps_table(analysis: Analysis) -> Table:
    title = f"{analysis.record.get('tuning_world')}: area that a method's settings dominate"
    table = _table(title, ("method",), ("area", "settings"))
    for sweep in analysis.sweeps:
        table.add_row(escape(sweep.method.name), share(sweep.volume), str(len(sweep.points)))
    return table


def _choices_table(analysis: Analysis) -> Table:
    table = _table("settings chosen on validation", ("method", "setting"), ("bound", "gain"))
    table.add_column("harms", justify="right")
    for choice in analysis.choices:
        trial = trial_of(choice.trials, choice.index)
        worse = str(len(trial["excluded"])) if trial else NONE
        figures = (share(trial.get("lcb")), share(trial.get("gain")), worse)
        name, setting = escape(choice.method.name), escape(short_settings(choice.overrides))
        table.add_row(name, setting, *figures)
    return table


def _list_table(title: str, lines: Sequence[str]) -> Table:
    table = _table(title, ("",), ())
    table.show_header = False
    for line in lines:
        table.add_row(escape(line))
    return table
