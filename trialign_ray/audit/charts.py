"""The charts of an audit's page. Groups are one colour, those surely served worse another, users
who must not differ are grey."""

from typing import Any

import plotly.graph_objects as go

from trialign_ray.audit.verdict import badly_served
from trialign_ray.chart_style import (
    GREY,
    INK,
    PALE,
    RUST,
    TEAL,
    figures_json,
    interval_bars,
    styled,
)

GROUP, WORSE, NEUTRAL = TEAL, RUST, GREY
OUTCOMES = (("right", TEAL), ("wrong", RUST), ("refused", GREY), ("not readable", PALE))
ROW_PX = 34


def charts(result: dict[str, Any]) -> dict[str, str]:
    """Every chart that there is something to show in, by name, as Plotly's JSON."""
    figures = {"truth": truth_chart(result), "outcomes": outcomes_chart(result)}
    if len(result["by_source"]) > 1:
        figures["sources"] = sources_chart(result)
    if result["adherence"]:
        figures["style"] = style_chart(result["adherence"])
    return figures_json(figures)


def truth_chart(result: dict[str, Any]) -> go.Figure:
    """Accuracy of every group with its interval, above that of the neutral users."""
    truth, worse = result["truth"], badly_served(result)
    figure = go.Figure()
    for name, wanted, color in (
        ("surely served worse", True, WORSE),
        ("group", False, GROUP),
    ):
        rows = [g for g in worst_first(truth) if (g in worse) == wanted]
        if rows:
            bounds = truth["ci"]["by_group"]
            _dots(figure, name, rows, truth["by_group"], bounds, color)
    controls = result["controls"]
    if controls:
        rows = worst_first(controls)
        _dots(
            figure, "neutral user", rows, controls["by_group"], controls["ci"]["by_group"], NEUTRAL
        )
        figure.add_vline(x=controls["mean"], line={"color": NEUTRAL, "dash": "dot"})
    nobody = result["no_persona"]
    _dots(figure, "no persona", ["no persona"], {"no persona": nobody["truth"]},
          {"no persona": nobody["ci"]}, INK)  # fmt: skip
    order = [
        "no persona",
        *(worst_first(controls)[::-1] if controls else []),
        *worst_first(truth)[::-1],
    ]
    figure.update_yaxes(categoryorder="array", categoryarray=order, ticksuffix="  ")
    figure.update_xaxes(range=[-0.02, 1.05], tickformat=".0%", title="questions answered rightly")
    return styled(figure, 110 + ROW_PX * len(order))


def _dots(
    figure: go.Figure,
    name: str,
    rows: list[str],
    values: dict[str, float],
    bounds: dict[str, Any],
    color: str,
) -> None:
    figure.add_scatter(
        x=[values[r] for r in rows],
        y=rows,
        mode="markers",
        name=name,
        marker={"size": 13, "color": color},
        error_x=interval_bars(
            [values[r] for r in rows], [bounds[r] for r in rows], color, thickness=2
        ),
        hovertemplate="%{y}: %{x:.1%}<extra>" + name + "</extra>",
    )


def outcomes_chart(result: dict[str, Any]) -> go.Figure:
    """What became of every question: right, wrong, refused, not readable; shares that sum to 1."""
    shares = outcome_shares(result)
    names = list(shares)[::-1]
    figure = go.Figure()
    for kind, color in OUTCOMES:
        values = [shares[name][kind] for name in names]
        figure.add_bar(
            y=names,
            x=values,
            name=kind,
            orientation="h",
            marker={"color": color},
            text=[f"{v:.0%}" if v >= 0.06 else "" for v in values],
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate="%{y}: %{x:.1%}<extra>" + kind + "</extra>",
        )
    figure.update_layout(barmode="stack", legend={"traceorder": "normal"})
    figure.update_xaxes(range=[0, 1], tickformat=".0%")
    figure.update_yaxes(ticksuffix="  ")
    return styled(figure, 100 + ROW_PX * len(names))


def outcome_shares(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Shares of right, wrong, refused and unreadable answers by group, of all controls together,
    and of the user without persona."""
    truth, controls, nobody = result["truth"], result["controls"], result["no_persona"]
    rows = {
        g: (truth["by_group"][g], truth["abstained"][g], truth["unparsed"][g])
        for g in worst_first(truth)
    }
    if controls:
        parts = (controls[key].values() for key in ("by_group", "abstained", "unparsed"))
        right, refused, unread = (sum(p) / len(controls["by_group"]) for p in map(list, parts))
        rows["neutral users"] = (right, refused, unread)
    rows["no persona"] = (nobody["truth"], nobody["abstained"], nobody["unparsed"])
    return {
        name: {
            "right": right,
            "wrong": max(0.0, 1 - right - refused - unread),
            "refused": refused,
            "not readable": unread,
        }
        for name, (right, refused, unread) in rows.items()
    }


def worst_first(truth: dict[str, Any]) -> list[str]:
    """Names by their accuracy, the worst first."""
    return sorted(truth["by_group"], key=truth["by_group"].__getitem__)


def sources_chart(result: dict[str, Any]) -> go.Figure:
    """Accuracy by source and group, neutral users last."""
    sources, groups = list(result["by_source"]), worst_first(result["truth"])
    has_controls = result["controls"] is not None
    columns = [*groups, *(["neutral users"] if has_controls else [])]
    rows = []
    for source in sources:
        row = result["by_source"][source]
        values = [row["by_group"][g] for g in groups]
        rows.append([*values, *([row["controls"]] if has_controls else [])])
    figure = go.Figure(
        go.Heatmap(
            z=rows,
            x=columns,
            y=[f"{s} ({result['by_source'][s]['num_questions']})" for s in sources],
            zmin=0,
            zmax=1,
            colorscale=[[0, WORSE], [0.5, "#f3efe9"], [1, GROUP]],
            text=[[f"{v:.0%}" for v in row] for row in rows],
            texttemplate="%{text}",
            xgap=3,
            ygap=3,
            showscale=False,
            hovertemplate="%{y}, %{x}: %{z:.1%}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", ticksuffix="  ")
    figure.update_xaxes(side="top")
    return styled(figure, 90 + ROW_PX * len(sources))


def style_chart(adherence: dict[str, Any]) -> go.Figure:
    """Share of answers in the group's own style."""
    by_group = adherence["by_group"]
    names = sorted(by_group, key=by_group.__getitem__, reverse=True)
    figure = go.Figure(
        go.Bar(
            y=names,
            x=[by_group[g] for g in names],
            orientation="h",
            marker={"color": GROUP},
            text=[f"{by_group[g]:.0%}" for g in names],
            textposition="outside",
            cliponaxis=False,
        )
    )
    figure.update_xaxes(range=[0, 1.12], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1])
    figure.update_yaxes(ticksuffix="  ")
    return styled(figure, 70 + ROW_PX * len(names))
