"""The charts of a sweep's page. Parallel coordinates are drawn as plain lines: Plotly's own need
WebGL and code made at run time, which the page's security policy forbids."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from trialign_ray.chart_style import GREY, INK, RUST, TEAL, styled
from tuning.search_dimensions import LOGARITHMIC, Dimension
from tuning.sweep_plan import OBJECTIVES, TrialRecord
from tuning.sweep_results import finished
from tuning.sweep_summary import SweepSummary
from tuning.sweep_tables import TITLES, keys_of, settings_of, short_key, shown

SCALE = "Viridis"
ZERO_AT, IDLE_AT = -0.08, -0.18
"""Where an axis of a range shows 0 below a logarithmic range, and trials that did not read it."""
NUM_TICKS = 4


def tradeoff_chart(summary: SweepSummary) -> go.Figure:
    """Worst truth against worst adherence, every finished trial; the colour is all-correct."""
    figure = go.Figure()
    front = set(summary.pareto)
    places = finished(summary.records)
    for on_front, name in ((False, "beaten by another"), (True, "nothing beats these")):
        own = [summary.records[i] for i in places if (i in front) is on_front]
        if own:
            figure.add_scatter(
                x=[r.metrics["worst_adherence"] for r in own],
                y=[r.metrics["worst_truth"] for r in own],
                mode="markers",
                name=name,
                text=[_hover(summary, r) for r in own],
                hovertemplate="%{text}<extra></extra>",
                marker={
                    "size": 14 if on_front else 9,
                    "symbol": "circle",
                    "line": {"width": 2 if on_front else 0, "color": INK},
                    "color": [r.metrics["all_correct"] for r in own],
                    "coloraxis": "coloraxis",
                },
            )
    _mark_behaviour(figure, summary)
    _mark_choices(figure, summary)
    figure.update_xaxes(title="style kept, worst group, validation", tickformat=".0%")
    figure.update_yaxes(title="truth, worst group, validation", tickformat=".0%")
    bar = {"title": {"text": "all<br>correct"}, "thickness": 12, "tickformat": ".0%"}
    values = [summary.records[i].metrics["all_correct"] for i in places]
    ends = {"cmin": min(values), "cmax": max(max(values), min(values) + 1e-6)}
    figure.update_layout(coloraxis={"colorscale": SCALE, "colorbar": bar, **ends})
    return _with_legend_below(figure, 560)


def _mark_behaviour(figure: go.Figure, summary: SweepSummary) -> None:
    if summary.behaviour is not None:
        figure.add_scatter(
            x=[summary.behaviour["worst_adherence"]],
            y=[summary.behaviour["worst_truth"]],
            mode="markers",
            name="behaviour model",
            marker={"symbol": "x", "size": 13, "color": GREY},
            hovertemplate="the behaviour model<extra></extra>",
        )


def _mark_choices(figure: go.Figure, summary: SweepSummary) -> None:
    names: dict[str, list[str]] = {}
    records = {c.record.trial_id: c.record for c in summary.choices if c.record}
    for choice in summary.choices:
        if choice.record is not None:
            names.setdefault(choice.record.trial_id, []).append(choice.preference.name)
    if names:
        own = [records[trial_id] for trial_id in names]
        figure.add_scatter(
            x=[r.metrics["worst_adherence"] for r in own],
            y=[r.metrics["worst_truth"] for r in own],
            mode="markers+text",
            name="best per preference",
            text=[", ".join(names[r.trial_id]) for r in own],
            textposition=_text_places(summary, own),
            cliponaxis=False,
            hoverinfo="skip",
            marker={
                "symbol": "circle-open",
                "size": 22,
                "color": RUST,
                "line": {"width": 2.5, "color": RUST},
            },
        )


def _text_places(summary: SweepSummary, own: Sequence[TrialRecord]) -> list[str]:
    """Labels stand towards the middle of the chart, so that none leaves it; going down, in turn
    above and below, since what is best for one preference lies close to what is for another."""
    shown_x = [summary.records[i].metrics["worst_adherence"] for i in finished(summary.records)]
    middle = (min(shown_x) + max(shown_x)) / 2
    truth = sorted((r.metrics["worst_truth"] for r in own), reverse=True)
    return [
        ("bottom" if truth.index(r.metrics["worst_truth"]) % 2 else "top")
        + (" left" if r.metrics["worst_adherence"] >= middle else " right")
        for r in own
    ]


def volume_chart(summary: SweepSummary) -> go.Figure:
    """Hypervolume of all finished trials so far over time."""
    figure = go.Figure()
    times = [0.0, *(seconds for seconds, _, _ in summary.volume)]
    volumes = [0.0, *(volume for _, volume, _ in summary.volume)]
    figure.add_scatter(
        x=times,
        y=volumes,
        mode="lines+markers",
        line={"shape": "hv", "color": TEAL, "width": 2},
        text=["the start", *(trial_id for _, _, trial_id in summary.volume)],
        hovertemplate="%{text}: %{y:.4f} after %{x:.0f} s<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(title="seconds since the first trial began", rangemode="tozero")
    figure.update_yaxes(title="hypervolume", rangemode="tozero")
    return styled(figure, 340)


def parallel_chart(summary: SweepSummary) -> go.Figure:
    """Every finished trial as a line through its settings and its objectives."""
    figure = go.Figure()
    records = [summary.records[i] for i in finished(summary.records)]
    axes = [_axis_of(d, records) for d in summary.space.dimensions]
    axes += [_objective_axis(name, records) for name in OBJECTIVES]
    truth = [r.metrics["worst_truth"] for r in records]
    low, high = min(truth), max(truth)
    order = sorted(range(len(records)), key=lambda n: truth[n])
    shares = [(t - low) / (high - low) if high > low else 1.0 for t in truth]
    colors = sample_colorscale(SCALE, shares)
    for n in order:
        figure.add_scatter(
            x=list(range(len(axes))),
            y=[axis.places[n] for axis in axes],
            mode="lines",
            line={"color": colors[n], "width": 2.2, "shape": "spline", "smoothing": 0.6},
            opacity=0.85,
            hoveron="points+fills",
            text=[_hover(summary, records[n])] * len(axes),
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    for x, axis in enumerate(axes):
        _draw_axis(figure, x, axis)
    _add_color_bar(figure, low, high)
    figure.update_xaxes(visible=False, range=[-0.6, len(axes) - 0.4])
    figure.update_yaxes(visible=False, range=[IDLE_AT - 0.06, 1.12])
    return styled(figure, 460)


@dataclass(frozen=True)
class _Axis:
    """title; places of the trials on it, 0 to 1 (below 0: see ZERO_AT and IDLE_AT); ticks: place
    and label."""

    title: str
    places: list[float]
    ticks: list[tuple[float, str]]


def _axis_of(dimension: Dimension, records: Sequence[TrialRecord]) -> _Axis:
    values = [r.params.get(dimension.key) for r in records]
    if dimension.kind == "choice":
        span = max(len(dimension.bounds) - 1, 1)
        place = {repr(option): i / span for i, option in enumerate(dimension.bounds)}
        ticks = [(place[repr(option)], shown(option)) for option in dimension.bounds]
        # None is an option here, or the key was not read
        places = [place.get(repr(value), IDLE_AT) for value in values]
    else:
        places = [_place(dimension, value) for value in values]
        low, high = _ends(dimension)
        shares = [i / (NUM_TICKS - 1) for i in range(NUM_TICKS)]
        ticks = [(share, f"{_between(dimension, low, high, share):.2g}") for share in shares]
        if ZERO_AT in places:
            ticks.append((ZERO_AT, "0"))
    if IDLE_AT in places:
        ticks.append((IDLE_AT, "not read"))
    return _Axis(short_key(dimension.key), places, ticks)


def _ends(dimension: Dimension) -> tuple[float, float]:
    """The smallest number above 0 that is drawn, and the largest."""
    low = dimension.lowest if dimension.zero_below is None else dimension.zero_below
    return float(low), float(dimension.highest)


def _between(dimension: Dimension, low: float, high: float, share: float) -> float:
    if dimension.kind in LOGARITHMIC:
        return low * (high / low) ** share
    return low + (high - low) * share


def _place(dimension: Dimension, value: float | None) -> float:
    if value is None:
        return IDLE_AT
    low, high = _ends(dimension)
    if value < low:
        return ZERO_AT
    if dimension.kind in LOGARITHMIC:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _objective_axis(name: str, records: Sequence[TrialRecord]) -> _Axis:
    values = [r.metrics[name] for r in records]
    low, high = min(values), max(values)
    span = high - low
    places = [(v - low) / span if span > 0 else 0.5 for v in values]
    ticks = [(0.0, f"{low:.3f}"), (1.0, f"{high:.3f}")] if span > 0 else [(0.5, f"{low:.3f}")]
    return _Axis(f"<b>{TITLES[name]}</b>", places, ticks)


def _draw_axis(figure: go.Figure, x: int, axis: _Axis) -> None:
    lowest = min(0.0, *(place for place, _ in axis.ticks)) if len(axis.ticks) > 1 else 0.0
    figure.add_shape(
        type="line", x0=x, x1=x, y0=lowest, y1=1, line={"color": INK, "width": 1}, layer="below"
    )
    figure.add_annotation(x=x, y=1.1, text=axis.title, showarrow=False)
    for place, label in axis.ticks:
        figure.add_annotation(
            x=x,
            y=place,
            text=label,
            showarrow=False,
            xanchor="right",
            xshift=-4,
            font={"size": 11},
            bgcolor="rgba(255,255,255,0.8)",
        )


def _add_color_bar(figure: go.Figure, low: float, high: float) -> None:
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        showlegend=False,
        marker={
            "colorscale": SCALE,
            "color": [low],
            "cmin": low,
            "cmax": high if high > low else low + 1e-6,
            "showscale": True,
            "colorbar": {"title": {"text": "worst<br>truth"}, "thickness": 12},
        },
    )


def _hover(summary: SweepSummary, record: TrialRecord) -> str:
    values = ", ".join(f"{TITLES[name]} {record.metrics[name]:.3f}" for name in OBJECTIVES)
    settings = settings_of(record, keys_of(summary)).replace(", ", "<br>")
    return f"<b>{record.trial_id}</b><br>{values}<br>{settings}"


def _with_legend_below(figure: go.Figure, height_px: int) -> go.Figure:
    return styled(
        figure,
        height_px,
        margin={"l": 10, "r": 10, "t": 20, "b": 10},
        legend={"orientation": "h", "y": -0.16, "yanchor": "top", "x": 0},
    )
