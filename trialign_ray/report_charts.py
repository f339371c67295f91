"""The report's charts. What belongs to all groups is one colour before and another after."""

from typing import Any

import plotly.graph_objects as go

from trialign_ray.summary import Summary

BEFORE, AFTER, BASE, INK = "#c2703d", "#1f7a8c", "#8a94a6", "#1d2733"
PALETTE = ("#1f7a8c", "#c2703d", "#6b5b95", "#5a8f3c", "#b0455f", "#3b6fb6")


def charts(
    evaluation: dict[str, Any], summary: Summary, training: Any, solution: Any
) -> dict[str, str]:
    """Every chart that there is something to show in, by name, as Plotly's JSON.

    Args: training, solution: what `training.json` and `solution.json` hold, or None.
    """
    figures = {
        "truth": truth_chart(evaluation, summary),
        "consistency": consistency_chart(summary),
        "style": style_chart(evaluation),
    }
    if training and "losses" in training:
        losses = training["losses"]
        if len(losses) < len(summary.lines):
            losses = {"all groups": next(iter(losses.values()))}
        figures["training"] = training_chart(losses)
    if solution and solution["credit"]:
        figures["credit"] = credit_chart(solution)
    return {name: figure.to_json() or "" for name, figure in figures.items()}


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
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [high - v for v, (_, high) in zip(values, bounds, strict=True)],
                "arrayminus": [v - low for v, (low, _) in zip(values, bounds, strict=True)],
                "color": color,
                "thickness": 2,
            },
            hovertemplate="%{y}: %{x:.1%}<extra>" + label + "</extra>",
        )
    base = evaluation["models"]["facts_base"]["truth"]["mean"]
    figure.add_vline(x=base, line={"color": BASE, "dash": "dot"})
    figure.update_xaxes(range=[-0.02, 1.05], tickformat=".0%", title="facts told rightly")
    return _styled(figure, 90 + 55 * len(groups))


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
        )
    figure.update_layout(barmode="group", legend={"traceorder": "reversed"})
    figure.update_xaxes(range=[0, 1.15], tickformat=".0%")
    figure.update_yaxes(ticksuffix="  ")
    return _styled(figure, 330)


def style_chart(evaluation: dict[str, Any]) -> go.Figure:
    """Adherence per group and prompt mode, before and after."""
    figure = go.Figure()
    modes = evaluation["models"]["aligned"]["adherence"]
    for name, label, color in (("behaviour", "before", BEFORE), ("aligned", "after", AFTER)):
        for mode in modes:
            by_group = evaluation["models"][name]["adherence"][mode]["by_group"]
            figure.add_bar(
                x=list(by_group),
                y=list(by_group.values()),
                name=f"{label}, {mode} profile",
                marker={
                    "color": color,
                    "pattern": {"shape": "" if mode == "explicit" else "/", "size": 5},
                },
            )
    figure.update_layout(barmode="group")
    figure.update_yaxes(range=[0, 1.05], tickformat=".0%", title="answers in the group's style")
    return _styled(figure, 330)


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
    figure.update_yaxes(title="loss", type="log", dtick=1)
    return _styled(figure, 330)


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
    return _styled(figure, 330)


def _styled(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 10, "r": 20, "t": 36, "b": 10},
        font={"family": "Inter, system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure
