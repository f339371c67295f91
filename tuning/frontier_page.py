"""frontier.html: one file, nothing loaded from outside."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from trialign_ray.chart_style import GREY, INK, RUST, TEAL, figures_json, styled
from trialign_ray.html_page import render_page
from trialign_ray.targets_sweep import Point
from tuning.frontier_grid import setting_name
from tuning.frontier_tables import figures_of, flags, line_rows, worst_of

if TYPE_CHECKING:
    from tuning.frontier import FrontierSummary

LINE, OWN, LOG, TRUTH, LIKING = INK, "#b0455f", GREY, TEAL, RUST
SYMBOLS = {
    "log_nash": "circle",
    "power_mean": "diamond",
    "soft_min": "square",
    "gini": "triangle-up",
    "cvar": "triangle-down",
    "maximin": "cross",
    "generalized_gini": "pentagon",
}
_TEMPLATE = Path(__file__).parent / "frontier.html.j2"


def frontier_page(summary: "FrontierSummary") -> str:
    """The page as HTML."""
    charts = {"tradeoff": tradeoff_chart(summary), "inconsistency": inconsistency_chart(summary)}
    done = [t for t in summary.trained if not t.realised.failure]
    if done:
        charts["realised"] = realised_chart(summary)
    return render_page(
        _TEMPLATE,
        run_name=summary.folder.parent.name,
        summary=summary,
        recommended=[
            (r, None if r.index is None else (summary.points[r.index], flags(summary, r.index)))
            for r in summary.frontier.recommended
        ],
        rows=line_rows(summary),
        failed=[(setting_name(p.settings), p.failure) for p in summary.failed],
        broken=summary.broken,
        num_trained=len(done),
        charts=figures_json(charts),
    )


def tradeoff_chart(summary: "FrontierSummary") -> go.Figure:
    """Worst truth against worst personalization, every setting, with the Pareto line."""
    figure = go.Figure()
    _add_settings(figure, summary, lambda p: (p.worst_personalization, p.worst_truth))
    line = [summary.points[i].promise for i in summary.frontier.line]
    figure.add_scatter(
        x=[p.worst_personalization for p in line],
        y=[p.worst_truth for p in line],
        mode="lines",
        name="nothing beats these",
        line={"color": LINE, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )
    _add_marks(figure, summary, lambda p: (p.worst_personalization, p.worst_truth))
    figure.update_xaxes(title="personalization of the worst group, promised", tickformat=".0%")
    figure.update_yaxes(title="truth of the worst group, promised", tickformat=".0%")
    return _styled(figure, 620)


def inconsistency_chart(summary: "FrontierSummary") -> go.Figure:
    """Inconsistency against worst truth, every setting."""
    figure = go.Figure()
    _add_settings(figure, summary, lambda p: (p.inconsistency, p.worst_truth))
    _add_marks(figure, summary, lambda p: (p.inconsistency, p.worst_truth))
    figure.update_xaxes(title="inconsistency between groups (nats), promised", rangemode="tozero")
    figure.update_yaxes(title="truth of the worst group, promised", tickformat=".0%")
    return _styled(figure, 480)


def _add_settings(figure: go.Figure, summary: "FrontierSummary", axes: Any) -> None:
    """One trace per players and welfare: its symbol; the colour is lambda."""
    solved = [p for p in summary.points if p.prediction is not None]
    families: dict[tuple[str, str], list[Point]] = {}
    for point in solved:
        key = (point.settings.get("players", ""), point.settings.get("welfare", ""))
        families.setdefault(key, []).append(point)
    ticks = sorted({_penalty_weight(p) for p in solved})
    shades = {weight: i for i, weight in enumerate(ticks)}
    for (players, welfare), own in families.items():
        at = [axes(p.promise) for p in own]
        symbol = SYMBOLS.get(welfare, "hexagon")
        figure.add_scatter(
            x=[x for x, _ in at],
            y=[y for _, y in at],
            mode="markers",
            name=f"{welfare}, {players}".replace("_", " "),
            text=[_hover(p) for p in own],
            hovertemplate="%{text}<extra></extra>",
            marker={
                "symbol": symbol + ("-open" if players == "groups" else ""),
                "size": 8,
                "opacity": 0.75,
                "color": [shades[_penalty_weight(p)] for p in own],
                "coloraxis": "coloraxis",
            },
        )
    shown = ticks[:: max(1, len(ticks) // 8)]
    figure.update_layout(
        coloraxis={
            "colorscale": "Viridis",
            "cmin": 0,
            "cmax": max(len(ticks) - 1, 1),
            "colorbar": {
                "title": {"text": "lambda"},
                "tickvals": [shades[w] for w in shown],
                "ticktext": [f"{w:g}" for w in shown],
                "thickness": 12,
            },
        }
    )


def _penalty_weight(point: Point) -> float:
    return point.settings.get("penalty_weight", 0.0)


def _hover(point: Point) -> str:
    settings = "<br>".join(f"{key} {value}" for key, value in point.settings.items())
    promise = point.promise
    truth, liking, inconsistency = figures_of(promise)
    by_group = ", ".join(f"{group} {value:.3f}" for group, value in promise.truth.items())
    return (
        f"<b>truth {truth}, personalization {liking}</b><br>inconsistency {inconsistency}, KL "
        f"{promise.kl:.3f}<br>truth: {by_group}<br>{settings}"
    )


def _add_marks(figure: go.Figure, summary: "FrontierSummary", axes: Any) -> None:
    """The log, the run's own setting, and the recommendations."""
    marks = [("the log as it is", "x", LOG, summary.log)]
    if summary.own is not None:
        marks.append(("this run's setting", "star", OWN, summary.own))
    for name, symbol, color, promise in marks:
        x, y = axes(promise)
        figure.add_scatter(
            x=[x],
            y=[y],
            mode="markers",
            name=name,
            marker={"symbol": symbol, "size": 15, "color": color, "line": {"width": 1.5}},
            text=[", ".join(figures_of(promise))],
            hovertemplate=name + ": %{text}<extra></extra>",
        )
    chosen = [r for r in summary.frontier.recommended if r.index is not None]
    at = [axes(summary.points[r.index].promise) for r in chosen if r.index is not None]
    figure.add_scatter(
        x=[x for x, _ in at],
        y=[y for _, y in at],
        mode="markers+text",
        name="recommended",
        text=[r.name for r in chosen],
        textposition=["middle left", "top right", "bottom left"][: len(chosen)],
        hoverinfo="skip",
        marker={
            "symbol": "circle-open",
            "size": 19,
            "color": OWN,
            "line": {"width": 2.5, "color": OWN},
        },
    )


def realised_chart(summary: "FrontierSummary") -> go.Figure:
    """Promised against realised, worst group, test and validation, with y = x."""
    figure = go.Figure()
    done = [t for t in summary.trained if not t.realised.failure]
    names = [t.name for t in done]
    promised = [summary.points[t.index].promise for t in done]
    for split in done[0].realised.splits:
        truth = [worst_of(t.realised.truth[split]) for t in done]
        liking = [worst_of(t.realised.personalization[split]) for t in done]
        pairs = (
            ("truth", TRUTH, [p.worst_truth for p in promised], truth),
            ("personalization", LIKING, [p.worst_personalization for p in promised], liking),
        )
        for what, color, before, after in pairs:
            _add_pairs(figure, f"{what}, {split}", color, split == "test", before, after, names)
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="kept", line={"color": LOG, "dash": "dash"}
    )
    figure.update_xaxes(title="promised on the log, worst group", tickformat=".0%")
    figure.update_yaxes(title="realised on held-out questions, worst group", tickformat=".0%")
    return _styled(figure, 480)


def _add_pairs(
    figure: go.Figure,
    label: str,
    color: str,
    filled: bool,
    before: Sequence[float],
    after: Sequence[float],
    names: Sequence[str],
) -> None:
    figure.add_scatter(
        x=before,
        y=after,
        mode="markers",
        name=label,
        text=names,
        hovertemplate="%{text}<br>promised %{x:.3f}, realised %{y:.3f}<extra></extra>",
        marker={"color": color, "size": 11, "symbol": "circle" if filled else "circle-open"},
    )


def _styled(figure: go.Figure, height_px: int) -> go.Figure:
    """In the style of all pages, with the legend below: it is long."""
    return styled(
        figure,
        height_px,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        legend={"orientation": "h", "y": -0.14, "yanchor": "top", "x": 0},
    )
