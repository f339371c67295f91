"""The comparison as Markdown, to be committed: header, main tables, the other worlds, the rest."""

from collections.abc import Iterable, Sequence

from trialign_ray.comparison.analysis import Analysis, Choice, Section, analyse, compact_rows
from trialign_ray.comparison.cell_results import BEHAVIOUR
from trialign_ray.comparison.methods import OURS
from trialign_ray.comparison.results import Results
from trialign_ray.comparison.rows import Row
from trialign_ray.comparison.words import (
    NONE,
    compact_cell,
    difference,
    facts,
    front_sentence,
    interval_note,
    mark,
    missing_lines,
    rival_sentences,
    share,
    short_settings,
    spread,
    style_verdict,
    trial_of,
)
from trialign_ray.markdown_text import markdown_table


def markdown(source: Results | Analysis) -> str:
    """The whole comparison. Raises: DataError."""
    analysis = analyse(source)
    parts = [
        _header(analysis),
        *(_main(section) for section in analysis.main),
        _compact(analysis),
        *(_ablations(section) for section in analysis.main if section.ablations),
        *(_heads(section) for section in analysis.sections if section.heads),
        _sweeps(analysis),
        _choices(analysis),
        _methods(analysis),
        _list("Not finished", missing_lines(analysis), "Every planned cell is finished."),
        _list("To know", analysis.notes, ""),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _text(value: str) -> str:
    """A table's cell: a bar or a line break would end it."""
    return value.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(markdown_table(head, ([_text(cell) for cell in row] for row in rows)))


def _header(analysis: Analysis) -> str:
    about = facts(analysis)
    lines = [
        "# Methods compared on TruthWorld",
        f"`{about.pop('command')}` at commit {about.pop('commit')}.",
        "\n".join(f"- {name}: {text}" for name, text in about.items()),
        f"{interval_note()} A tiny LM shows the mechanism only: no evidence about real social "
        "groups or large models.",
    ]
    if analysis.not_finished:
        lines.append(
            f"**Cells that are not finished: {len(analysis.not_finished)}**, listed below."
        )
    return "\n\n".join(lines)


def _main(section: Section) -> str:
    sentences = " ".join((*rival_sentences(section), front_sentence(section)))
    title = f"## {section.name}, {_seeds(section)}"
    return "\n\n".join((title, sentences, _rows(section.rows), _seed_table(section)))


def _seeds(section: Section) -> str:
    return "one seed" if len(section.seeds) == 1 else f"{len(section.seeds)} seeds"


def _rows(rows: Sequence[Row]) -> str:
    head = (
        *("method", "family", "calls", "worst group's truth", "mean truth", "all right"),
        *("agree and wrong", "worst style explicit", "implicit", "style kept"),
        *(f"{OURS} - it, truth", "mark", f"{OURS} - it, all right"),
        *(f"{OURS} - it, style", f"{OURS}'s not inferior"),
    )
    return _table(head, map(_row, rows))


def _row(row: Row) -> list[str]:
    num_seeds = len(row.seeds)
    name = f"**{row.method.name}**" if row.method.name == OURS else row.method.name
    said = mark(row)
    return [
        name,
        row.method.family,
        str(row.calls),
        spread(row.truth, num_seeds),
        share(row.mean_truth),
        share(row.all_correct),
        share(row.agree_and_wrong),
        spread(row.style, num_seeds),
        share(row.implicit),
        NONE if row.style is None else "yes" if row.keeps_style else "no",
        difference(row.versus.truth if row.versus else None),
        f"**{said}**" if row.marked else said,
        difference(row.versus.all_correct if row.versus else None),
        difference(row.versus.style if row.versus else None),
        style_verdict(row),
    ]


def _seed_table(section: Section) -> str:
    rows = [
        [
            str(line.seed),
            *(f"{w[1]:.3f} ({w[0]})" if w else NONE for w in (line.before, line.after)),
        ]
        for line in section.seed_lines
    ]
    return _table(("seed", f"worst group of {BEHAVIOUR}", f"worst group of {OURS}"), rows)


def _compact(analysis: Analysis) -> str:
    if not analysis.secondary:
        return ""
    sections = analysis.secondary
    rows = [
        [method.name, method.family, *map(compact_cell, own)]
        for method, own in compact_rows(analysis, sections)
    ]
    head = ("method", "family", *(f"{s.name} ({_seeds(s)})" for s in sections))
    text = (
        f"Worst group's truth, mean over seeds. `=` ties {OURS} (of one seed: is no worse), `>` "
        "beats it, `~` does not keep the style. Settings are those chosen on the main world."
    )
    best = "\n".join(f"- {s.name}: {' '.join(rival_sentences(s))}" for s in sections)
    return "\n\n".join(("## Other worlds", text, _table(head, rows), best))


def _ablations(section: Section) -> str:
    return f"## Ablations and options, {section.name}\n\n{_rows(section.ablations)}"


def _heads(section: Section) -> str:
    rows = [
        [h.head, *map(share, (h.accuracy, h.brier, h.ece, h.log_loss)), str(h.num_seeds)]
        for h in section.heads
    ]
    title = f"## Truth heads, {section.name}\n\nOn facts of the log whose gold no head saw."
    return f"{title}\n\n{_table(('head', 'accuracy', 'Brier', 'ECE', 'log loss', 'seeds'), rows)}"


def _sweeps(analysis: Analysis) -> str:
    if not analysis.sweeps:
        return ""
    rows = [
        [s.method.name, share(s.volume), ", ".join(f"({t:.3f}, {a:.3f})" for t, a in s.points)]
        for s in analysis.sweeps
    ]
    text = (
        f"## Hypervolume, {analysis.record.get('tuning_world')}\n\nArea that a method's settings "
        "dominate above (0, 0) in (worst group's truth, worst group's style), on test."
    )
    return f"{text}\n\n{_table(('method', 'area', 'settings'), rows)}"


def _choices(analysis: Analysis) -> str:
    if not analysis.choices:
        return ""
    head = ("method", "setting", "lower bound", f"gain over {BEHAVIOUR}", "why", "harms")
    return f"## Settings chosen\n\n{_table(head, map(_choice, analysis.choices))}"


def _choice(choice: Choice) -> list[str]:
    trial = trial_of(choice.trials, choice.index)
    return [
        choice.method.name,
        short_settings(choice.overrides),
        share(trial.get("lcb")),
        share(trial.get("gain")),
        choice.reason,
        "; ".join(trial.get("excluded", ())) or "none" if trial else NONE,
    ]


def _methods(analysis: Analysis) -> str:
    rows = [(m.name, m.family, m.summary) for m in analysis.methods]
    return f"## Methods\n\n{_table(('method', 'family', 'what it is'), rows)}"


def _list(title: str, lines: Sequence[str], empty: str) -> str:
    if not lines:
        return empty
    return "\n".join((f"## {title}", "", *(f"- `{line}`" for line in lines)))
