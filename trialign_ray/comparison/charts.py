"""The charts of the comparison page, as plotly figures that take their ink from the page."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from trialign_ray.chart_style import interval_bars, styled
from trialign_ray.comparison.analysis import WITHIN, Section
from trialign_ray.comparison.cell_results import BEHAVIOUR
from trialign_ray.comparison.labels import Mark, label_positions
from trialign_ray.comparison.methods import OURS
from trialign_ray.comparison.rows import Row, Spread
from trialign_ray.comparison.words import difference, mark, share, spread

FAMILY_COLORS = {
    "ours": "#1b9aaa",
    "baseline": "#d1793f",
    "untrained": "#8792a5",
    "ablation": "#8f7cc0",
    "option": "#5b8f4e",
}
VERDICT_COLORS = {"behind": "#1b9aaa", "ties": "#8792a5", "beats": "#d0483e", "one seed": "#8792a5"}
VERDICT_LABELS = {
    "behind": f"{OURS} is better",
    "ties": "interval includes 0",
    "beats": f"{OURS} loses",
    "one seed": "one seed, no interval",
}
SCATTER_HEIGHT, SCATTER_WIDTH = 460, 1040
AROUND_PLOT = 110
"""Height of a chart that its legend and axis take, in pixels."""


def trade_off(section: Section) -> go.Figure:
    """Worst group's truth against worst group's style, with the seeds' range as bars."""
    figure = go.Figure()
    placed = {r.method.name: r for r in (*section.ablations, *section.rows) if r.style}
    labels = label_positions(_marks(section, placed.values()), SCATTER_WIDTH)
    for family in ("untrained", "baseline", *WITHIN, "ours"):
        rows = [r for r in placed.values() if r.method.family == family]
        if rows:
            figure.add_trace(_points(family, rows, labels))
    figure.update_xaxes(title="worst group's style, explicit profile", tickformat=".0%")
    figure.update_yaxes(title="worst group's truth", tickformat=".0%")
    x_low, x_high = _range([r.style for r in placed.values()])
    y_low, y_high = _range([r.truth for r in placed.values()])
    figure.update_xaxes(range=[x_low, x_high])
    figure.update_yaxes(range=[y_low, y_high])
    return _styled(figure, SCATTER_HEIGHT)


def _marks(section: Section, rows: Iterable[Row]) -> list[Mark]:
    """Where the points lie in pixels, the ones that a reader looks for first."""
    shown = [r for r in rows if r.style and r.method.family not in WITHIN]
    if not shown:
        return []
    rivals = {r.row.method.name for r in section.rivals if r.row}
    x_low, x_high = _range([r.style for r in shown])
    y_low, y_high = _range([r.truth for r in shown])

    def importance(row: Row) -> tuple[bool, ...]:
        name = row.method.name
        return (name != OURS, name not in rivals, name != BEHAVIOUR, not row.on_front)

    return [
        Mark(
            r.method.name,
            (r.style.mean - x_low) / (x_high - x_low) * SCATTER_WIDTH,
            (r.truth.mean - y_low) / (y_high - y_low) * (SCATTER_HEIGHT - AROUND_PLOT),
        )
        for r in sorted(shown, key=importance)
        if r.style
    ]


def _range(values: Sequence[Spread | None]) -> tuple[float, float]:
    low, high = zip(*((v.low, v.high) for v in values if v), strict=True)
    room = 0.06 * max(max(high) - min(low), 0.05)
    return min(low) - room, max(high) + room


def _points(family: str, rows: Sequence[Row], labels: dict[str, str]) -> go.Scatter:
    ours, color = family == "ours", FAMILY_COLORS[family]
    return go.Scatter(
        x=[r.style.mean for r in rows if r.style],
        y=[r.truth.mean for r in rows],
        error_x=_bars([r.style for r in rows], color),
        error_y=_bars([r.truth for r in rows], color),
        mode="markers+text",
        name=family,
        marker={
            "color": color,
            "size": 17 if ours else 10,
            "symbol": "star" if ours else "circle",
            "opacity": 0.9,
        },
        text=[escape(r.method.name) if r.method.name in labels else "" for r in rows],
        textposition=[labels.get(r.method.name, "top left") for r in rows],
        textfont={"size": 13 if ours else 12, "weight": 700 if ours else 400},
        customdata=[[_hover(r)] for r in rows],
        hovertemplate="%{customdata[0]}<extra></extra>",
        cliponaxis=False,
        visible="legendonly" if family in WITHIN else True,
    )


def _bars(values: Sequence[Spread | None], color: str) -> dict[str, Any]:
    """Error bars over the range of the seeds."""
    known = [v for v in values if v]
    ranges = [(v.low, v.high) for v in known]
    return interval_bars([v.mean for v in known], ranges, color, thickness=1, width=3)


def _hover(row: Row) -> str:
    num_seeds = len(row.seeds)
    lines = [
        f"<b>{escape(row.method.name)}</b> ({row.method.family})",
        escape(row.method.summary),
        f"worst group's truth {spread(row.truth, num_seeds)}",
        f"worst group's style {spread(row.style, num_seeds)}",
        f"all right {share(row.all_correct)}, agree and wrong {share(row.agree_and_wrong)}",
        f"model calls per answer {row.calls}",
    ]
    if row.versus:
        lines.append(f"{OURS} - it {difference(row.versus.truth)} {mark(row)}")
    return "<br>".join(lines)


def forest(rows: Sequence[Row]) -> go.Figure:
    """Our method minus each other in the worst group's truth, with intervals."""
    paired = [r for r in reversed(rows) if r.versus]
    figure = go.Figure()
    for verdict, color in VERDICT_COLORS.items():
        chosen = [(r, r.versus) for r in paired if r.versus and r.versus.verdict == verdict]
        if not chosen:
            continue
        means = [v.truth.mean for _, v in chosen]
        ends = [v.truth.interval for _, v in chosen]
        figure.add_scatter(
            x=means,
            y=[escape(r.method.name) for r, _ in chosen],
            mode="markers",
            name=VERDICT_LABELS[verdict],
            marker={
                "color": color,
                "size": 9,
                "symbol": "circle-open" if verdict == "one seed" else "circle",
            },
            error_x=None
            if verdict == "one seed"
            else interval_bars(means, ends, color, thickness=2, width=4),
            customdata=[[_hover(r)] for r, _ in chosen],
            hovertemplate="%{customdata[0]}<extra></extra>",
        )
    names = [escape(r.method.name) for r in paired]
    figure.update_yaxes(categoryorder="array", categoryarray=names, ticksuffix="  ")
    figure.update_xaxes(title=f"{OURS} minus the method, worst group's truth", tickformat="+.2f")
    figure.update_xaxes(zeroline=True, zerolinewidth=2)
    return _styled(figure, 110 + 22 * len(paired))


def _styled(figure: go.Figure, height_px: int) -> go.Figure:
    """In the style of all pages, but with the page's own ink, by light and in the dark."""
    return styled(
        figure,
        height_px,
        template="none",
        margin={"l": 10, "r": 20, "t": 40, "b": 24},
        font={"family": "Inter, system-ui, sans-serif", "size": 13},
        hoverlabel={"align": "left"},
        showlegend=True,
    )
