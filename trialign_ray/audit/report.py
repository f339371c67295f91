"""An audit for people: audit.html (one file, nothing loaded from outside), audit.md, a table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from trialign_ray.audit.charts import charts, worst_first
from trialign_ray.audit.folder import AuditFolder
from trialign_ray.audit.verdict import p_text, percent
from trialign_ray.checkpoint import write_atomically
from trialign_ray.html_page import render_page
from trialign_ray.markdown_text import markdown_table

_TEMPLATE = Path(__file__).parents[1] / "audit.html.j2"
NONE = "–"
COLUMNS = ("user", "truth", "to neutral", "p (Holm)", "refused", "unread", "style")
CONSISTENCY = (
    ("all_correct", "all groups right"),
    ("truth_given_known", "right for all, if right for any"),
    ("all_agree", "all groups agree"),
    ("agree_and_wrong", "agree and wrong"),
)
OUTCOMES = {
    "unequal": "Groups are told different truths",
    "noise": "Groups differ, no more than noise of the prompt explains",
    "equal": "No sure difference between groups",
    "unknown": "Nobody to compare with",
}


@dataclass(frozen=True)
class Row:
    """One line of the table, ready to be shown. kind: group, control or no_persona."""

    name: str
    kind: str
    truth: str
    interval: str
    difference: str
    p_value: str
    refused: str
    unparsed: str
    style: str
    badly_served: bool = False

    def cells(self) -> tuple[str, ...]:
        truth = f"{self.truth} {self.interval}"
        return (
            self.name,
            truth,
            self.difference,
            self.p_value,
            self.refused,
            self.unparsed,
            self.style,
        )


def table_rows(result: dict[str, Any]) -> list[Row]:
    """Groups, worst first, then the neutral users, then the user without persona."""
    truth, controls, nobody = result["truth"], result["controls"], result["no_persona"]
    rows = [_group_row(result, g) for g in worst_first(truth)]
    for name in worst_first(controls) if controls else []:
        rows.append(_row(name, "control", controls, controls["ci"]["by_group"][name]))
    none = {k: {"no persona": nobody[k]} for k in ("abstained", "unparsed")}
    none["by_group"] = {"no persona": nobody["truth"]}
    rows.append(_row("no persona", "no_persona", none, nobody["ci"]))
    return rows


def _group_row(result: dict[str, Any], group: str) -> Row:
    against, adherence = result["against_controls"], result["adherence"]
    difference = p_value = style = NONE
    worse = False
    if against:
        figures = against["by_group"][group]
        low, high = figures["truth"]["ci"]
        points = f"{100 * figures['truth']['difference']:+.1f}"
        difference = f"{points} [{100 * low:+.1f}, {100 * high:+.1f}]"
        p_value, worse = p_text(figures["truth"]["p_holm"]), figures["badly_served"]
    if adherence and group in adherence["by_group"]:
        style = percent(adherence["by_group"][group])
    truth = result["truth"]
    found = _row(group, "group", truth, truth["ci"]["by_group"][group])
    return Row(**(vars(found) | {"difference": difference, "p_value": p_value, "style": style,
                                 "badly_served": worse}))  # fmt: skip


def _row(name: str, kind: str, figures: dict[str, Any], ci: Any) -> Row:
    return Row(
        name=name,
        kind=kind,
        truth=percent(figures["by_group"][name]),
        interval=f"[{100 * ci[0]:.0f}, {100 * ci[1]:.0f}]",
        difference=NONE,
        p_value=NONE,
        refused=percent(figures["abstained"][name]),
        unparsed=percent(figures["unparsed"][name]),
        style=NONE,
    )


def result_table(result: dict[str, Any]) -> Table:
    """The table for a terminal."""
    title = f"Truth by group ({result['num_truth_questions']} questions with a known answer)"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown = len(COLUMNS) if result["adherence"] else len(COLUMNS) - 1
    table.add_column(COLUMNS[0], overflow="fold", min_width=10)
    for name in COLUMNS[1:shown]:
        table.add_column(name, justify="right", no_wrap=True)
    kind = "group"
    for row in table_rows(result):
        if row.kind != kind:
            table.add_section()
            kind = row.kind
        style = "red" if row.badly_served else ("dim" if row.kind != "group" else None)
        cells = row.cells()
        points = cells[2].partition(" ")[0]  # the interval has no room in 80 columns
        table.add_row(*cells[:2], points, *cells[3:shown], style=style)
    return table


def consistency_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What belongs to all groups at once; empty for one group."""
    figures = result["consistency"]
    if figures is None:
        return []
    rows = [(label, _share(figures[key])) for key, label in CONSISTENCY]
    rows.append(("Fleiss' kappa of the answers", _number(figures["fleiss_kappa"])))
    rows.append(("Krippendorff's alpha of the answers", _number(figures["krippendorff_alpha"])))
    return rows


def _share(value: float | None) -> str:
    return NONE if value is None or value != value else percent(value)


def _number(value: float | None) -> str:
    return NONE if value is None or value != value else f"{value:.2f}"


def source_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Per source: questions, worst group with its share, neutral users, gap, null and p."""
    rows = []
    for source, row in result["by_source"].items():
        worst = min(row["by_group"], key=row["by_group"].__getitem__)
        rows.append(
            (
                source,
                str(row["num_questions"]),
                f"{worst} {percent(row['by_group'][worst])}",
                _share(row["controls"]),
                f"{100 * row['gap']:.1f}",
                f"{100 * row['gap_null']:.1f}",
                p_text(row["gap_p_holm"]),
            )
        )
    return rows


SOURCE_COLUMNS = (
    "source",
    "questions",
    "worst group",
    "neutral users",
    "gap (points)",
    "gap of equal groups",
    "p (Holm)",
)


def probe_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Questions without a true answer, a table per source: by audience, what was chosen."""
    probes = []
    for source, figures in result["without_truth"].items():
        audiences = figures["by_audience"]
        labels = sorted({name for row in audiences.values() for name in row["labels"]})
        rows = [
            (
                key.partition(":")[2],
                *(percent(row["labels"].get(name, 0.0)) for name in labels),
                percent(row["abstained"]),
                percent(row["unparsed"]),
            )
            for key, row in audiences.items()
        ]
        probes.append(
            {
                "source": source,
                "num_questions": figures["num_questions"],
                "all_agree": percent(figures["all_agree"]),
                "columns": ("user", *labels, "refused", "not readable"),
                "is_harm_probe": bool(labels),
                "rows": rows,
            }
        )
    return probes


def write_reports(folder: AuditFolder, result: dict[str, Any], config_yaml: str) -> Path:
    """Writes audit.md and audit.html; returns the page's path."""
    write_atomically(folder.root / "audit.md", markdown(result).encode())
    path = folder.root / "audit.html"
    write_atomically(path, html(result, folder.root.name, config_yaml).encode())
    return path


def html(result: dict[str, Any], name: str, config_yaml: str) -> str:
    """The page."""
    return render_page(
        _TEMPLATE,
        name=name,
        result=result,
        verdict=result["verdict"],
        headline=OUTCOMES[result["verdict"]["outcome"]],
        rows=table_rows(result),
        consistency=consistency_rows(result),
        sources=source_rows(result),
        source_columns=SOURCE_COLUMNS,
        probes=probe_rows(result),
        charts=charts(result),
        percent=percent,
        p_text=p_text,
        config_yaml=config_yaml,
    )


def markdown(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    verdict = result["verdict"]
    lines = [
        f"# Audit of {_cell(result['subject']['title'])}",
        "",
        f"**{verdict['sentence']}**",
        "",
    ]
    lines += [f"{sentence}\n" for sentence in verdict["behind"]]
    lines += [f"- Caution: {caution}" for caution in verdict["cautions"]]
    lines += ["", *_table(COLUMNS, [row.cells() for row in table_rows(result)])]
    if consistency_rows(result):
        lines += ["", *_table(("all groups together", ""), consistency_rows(result))]
    if len(result["by_source"]) > 1:
        lines += ["", *_table(SOURCE_COLUMNS, source_rows(result))]
    for probe in probe_rows(result):
        kind = "harm probe, no truth" if probe["is_harm_probe"] else "no true answer"
        about = f"{_cell(probe['source'])} ({kind}): {probe['num_questions']} questions, "
        lines += ["", f"{about}all groups told the same on {probe['all_agree']}.", ""]
        lines += _table(probe["columns"], probe["rows"])
    for example in result["examples"]:
        lines += ["", f"> {_cell(example['question'])}", "", f"True: {_cell(example['truth'])}", ""]
        told = [(t["name"], t["verdict"], t["text"]) for t in example["told"]]
        lines += _table(("user", "", "is told"), told)
    return "\n".join(lines) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return markdown_table(list(map(_cell, columns)), (list(map(_cell, row)) for row in rows))


def _cell(text: str) -> str:
    """What a model said, as plain text within a Markdown table."""
    plain = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return plain.replace("<", "&lt;").replace("`", "'").replace("[", "\\[")
