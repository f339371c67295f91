"""The report's charts. What belongs to all groups is one colour before and another after."""

from typing import Any

import plotly.graph_objects as go

from trialign_ray.chart_style import GREY, RUST, TEAL, figures_json, interval_bars, styled
from trialign_ray.summary import Summary

BEFORE, AFTER, BASE, NEUTRAL = RUST, TEAL, GREY, GREY
NOBODY = "no persona"
MANY_TIMES = 100
"""Largest over smallest loss from which powers of ten are ticks enough."""
PALETTE = (TEAL, RUST, "#6b5b95", "#5a8f3c", "#b0455f", "#3b6fb6")
MARGIN = {"l": 10, "r": 20, "t": 36, "b": 10}


def charts(
    evaluation: dict[str, Any], summary: Summary, training: Any, solution: Any
) -> dict[str, str]:
    """Every chart that there is something to show in, by name, as Plotly's JSON.

    Args: training, solution: what `training.json` and `solution.json` hold, or None.
    """
    figures = {
        "truth": truth_chart(evaluation, summary),
        "consistency": consistency_chart(summary),
    }
    if any(line.style_after is not None for line in summary.lines):
        figures["style"] = style_chart(evaluation)
    if evaluation.get("controls"):
        figures["controls"] = controls_chart(evaluation, summary)
    if training and "losses" in training:
        losses = training["losses"]
        if len(losses) < len(summary.lines):
            losses = {"all groups": next(iter(losses.values()))}
        figures["training"] = training_chart(losses)
    if solution and solution["credit"]:
        figures["credit"] = credit_chart(solution)
    return figures_json(figures)


def truth_chart(evaluation: dict[str, Any], summary: Summary) -> go.Figure:
    """Accuracy per group, before and after, with intervals; the facts base as a line."""
    groups = [line.group for line in reversed(summary.lines)]
    figure = go.Figure()
    for name, label, color in (
        ("behaviour", "before", BEFORE),
        ("aligned", "after", AFTER),
    ):
        truth = evaluation["models"][name]["truth"]
        values = [truth["by_group"][g] for g in groups]
        bounds = [truth["ci"]["by_group"][g] for g in groups]
        figure.add_scatter(
            x=values,
            y=groups,
            mode="markers",
            name=label,
            marker={"size": 14, "color": color},
            error_x=interval_bars(values, bounds, color, thickness=2),
            hovertemplate="%{y}: %{x:.1%}<extra>" + label + "</extra>",
        )
    base = evaluation["models"]["facts_base"]["truth"]["mean"]
    figure.add_vline(x=base, line={"color": BASE, "dash": "dot"})
    figure.update_xaxes(range=[-0.02, 1.05], tickformat=".0%", title="facts told rightly")
    return styled(figure, 90 + 55 * len(groups), margin=MARGIN)


def controls_chart(evaluation: dict[str, Any], summary: Summary) -> go.Figure:
    """Accuracy of groups, of neutral personas (before), and of the user without a persona: under
    the model before, and under every group's adapter."""
    controls = evaluation["controls"]
    personas = (controls["personas"] or {"by_control": {}})["by_control"]
    nobody, groups = controls["no_persona"], {line.group: line for line in summary.lines}
    own = nobody["aligned"]
    figure = go.Figure()
    before = {g: line.truth_before for g, line in groups.items()}
    _truths(figure, "before", BEFORE, before | {NOBODY: nobody["behaviour"]})
    if personas:
        _truths(figure, "neutral persona, before", NEUTRAL, personas)
    _truths(figure, "after", AFTER, {g: x.truth_after for g, x in groups.items()})
    figure.add_scatter(
        x=list(own.values()),
        y=[NOBODY] * len(own),
        mode="markers",
        name="after, each group's adapter",
        marker={"size": 14, "color": AFTER, "symbol": "line-ns-open", "line": {"width": 2}},
        text=list(own),
        hovertemplate="adapter of %{text}: %{x:.1%}<extra></extra>",
    )
    order = [NOBODY, *reversed(personas), *reversed(groups)]
    figure.update_yaxes(categoryorder="array", categoryarray=order, ticksuffix="  ")
    figure.update_xaxes(range=[-0.02, 1.05], tickformat=".0%", title="facts told rightly")
    return styled(figure, 110 + 32 * len(order), margin=MARGIN)


def _truths(figure: go.Figure, name: str, color: str, truth: dict[str, float]) -> None:
    figure.add_scatter(
        x=list(truth.values()),
        y=list(truth),
        mode="markers",
        name=name,
        marker={"size": 12, "color": color},
        hovertemplate="%{y}: %{x:.1%}<extra>" + name + "</extra>",
    )


def consistency_chart(summary: Summary) -> go.Figure:
    """Shares of questions, before and after."""
    rows = [row for row in summary.shared if "nats" not in row[0]][::-1]
    figure = go.Figure()
    for position, label, color in ((2, "after", AFTER), (1, "before", BEFORE)):
        figure.add_bar(
            y=[row[0] for row in rows],
            x=[row[position] for row in rows],
            name=label,
            orientation="h",
            marker={"color": color},
            text=[f"{row[position]:.0%}" for row in rows],
            textposition="outside",
            cliponaxis=False,
        )
    figure.update_layout(barmode="group", legend={"traceorder": "reversed"})
    figure.update_xaxes(range=[0, 1.2], tickformat=".0%", tickvals=[0, 0.5, 1])
    figure.update_yaxes(ticksuffix="  ")
    return styled(figure, 330, margin=MARGIN)


def style_chart(evaluation: dict[str, Any]) -> go.Figure:
    """Adherence per group and prompt mode, before and after."""
    figure = go.Figure()
    modes = evaluation["models"]["aligned"]["adherence"]
    for name, label, color in (("behaviour", "before", BEFORE), ("aligned", "after", AFTER)):
        for mode in modes:
            shares = evaluation["models"][name]["adherence"][mode]["by_group"]
            by_group = {g: share for g, share in shares.items() if share is not None}
            figure.add_bar(
                x=list(by_group),
                y=list(by_group.values()),
                name=f"{label}, {mode}",
                marker={
                    "color": color,
                    "pattern": {"shape": "" if mode == "explicit" else "/", "size": 5},
                },
            )
    figure.update_layout(barmode="group")
    figure.update_yaxes(range=[0, 1.05], tickformat=".0%", title="answers in the group's style")
    return styled(figure, 330, margin=MARGIN)


def training_chart(losses: dict[str, list[float]]) -> go.Figure:
    """Training loss of every adapter, by the name of who it serves."""
    figure = go.Figure()
    for i, (group, values) in enumerate(losses.items()):
        figure.add_scatter(
            x=list(range(1, len(values) + 1)),
            y=values,
            mode="lines",
            name=group,
            line={"color": PALETTE[i % len(PALETTE)], "width": 2},
        )
    figure.update_xaxes(title="update")
    seen = [value for values in losses.values() for value in values if value > 0]
    decades = bool(seen) and max(seen) > MANY_TIMES * min(seen)
    figure.update_yaxes(title="loss", type="log", dtick=1 if decades else None)
    return styled(figure, 330, margin=MARGIN)


def credit_chart(solution: dict[str, Any]) -> go.Figure:
    """How much the centre weighs each group's objectives: dW/dU at the solution."""
    figure = go.Figure()
    for i, (objective, credits) in enumerate(solution["credit"].items()):
        utility = solution["utility"][objective]
        figure.add_bar(
            x=list(credits),
            y=list(credits.values()),
            name=objective,
            marker={"color": PALETTE[i % len(PALETTE)]},
            text=[f"U {utility[g]:.2f}" for g in credits],
            textposition="inside",
            insidetextanchor="end",
            textangle=-90,
        )
    figure.update_layout(barmode="group")
    figure.update_yaxes(title="credit dW/dU", rangemode="tozero")
    return styled(figure, 330, margin=MARGIN)
