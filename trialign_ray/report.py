"""Stage 7, report: report.html (one file, nothing loaded from outside) and report.md.

Shows what a person needs who does not know the method: who was told how many truths before and
after, whether groups agree and on what, whether their style was kept, and how it came about.
"""

import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from trialign_ray.checkpoint import write_atomically
from trialign_ray.run_directory import RunDirectory
from trialign_ray.summary import Summary, read_evaluation, summarise

BEFORE, AFTER, BASE, INK = "#c2703d", "#1f7a8c", "#8a94a6", "#1d2733"
PALETTE = ("#1f7a8c", "#c2703d", "#6b5b95", "#5a8f3c", "#b0455f", "#3b6fb6")
_TEMPLATE = "report.html.j2"


def write_report(run: RunDirectory) -> Path:
    """Writes both reports; returns report.html's path. Raises: DataError without evaluation."""
    evaluation = read_evaluation(run)
    summary = summarise(evaluation, run)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(_TEMPLATE).render(
        run_name=run.name,
        evaluation=evaluation,
        summary=summary,
        charts=_charts(run, evaluation, summary),
        plotly_js=get_plotlyjs(),
        samples=_samples(evaluation),
        solution=_read_json(run.solution_file),
        truth_head=_read_json(run.critic_report),
        config_yaml=run.config_file.read_text(encoding="utf-8"),
        manifest=_read_json(run.manifest_file),
    )
    write_atomically(run.root / "report.md", markdown(evaluation, summary).encode())
    write_atomically(run.root / "report.html", html.encode())
    return run.root / "report.html"


def markdown(evaluation: dict[str, Any], summary: Summary) -> str:
    """The figures as Markdown tables."""
    lines = [
        "# TriAlign report",
        "",
        f"{summary.num_truth_questions} held-out questions with a known answer; seed "
        f"{evaluation['seed']}; algorithm {evaluation['algorithm']}.",
        "",
        "| group | truth before | truth after | style before | style after |",
        "| --- | --- | --- | --- | --- |",
    ]
    for g in summary.lines:
        lines.append(
            f"| {g.group} | {g.truth_before:.3f} {_range(g.truth_before_ci)} | {g.truth_after:.3f} "
            f"{_range(g.truth_after_ci)} | {g.style_before:.3f} | {g.style_after:.3f} |"
        )
    lines += ["", "| all groups together | before | after |", "| --- | --- | --- |"]
    lines += [f"| {label} | {a:.3f} | {b:.3f} |" for label, a, b in summary.shared]
    difference = evaluation["aligned_minus_behaviour"]["worst_truth"]
    lines += [
        "",
        f"Worst group, after minus before: {difference['difference']:+.3f} "
        f"{_range(difference['ci'])} (paired bootstrap over questions).",
        "",
    ]
    return "\n".join(lines)


def _range(interval: Any) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _samples(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Some held-out questions: what each group hears before and after, and whether it is true."""
    before, after = evaluation["models"]["behaviour"], evaluation["models"]["aligned"]
    samples = []
    for i, question in enumerate(after["samples"]["questions"]):
        rows = [
            {
                "group": group,
                "before": before["samples"]["by_group"][group][i],
                "after": after["samples"]["by_group"][group][i],
            }
            for group in after["samples"]["by_group"]
        ]
        samples.append({"question": question, "rows": rows})
    return samples


def _charts(run: RunDirectory, evaluation: dict[str, Any], summary: Summary) -> dict[str, str]:
    charts = {
        "truth": truth_chart(evaluation, summary),
        "consistency": consistency_chart(summary),
        "style": style_chart(evaluation),
    }
    training = _read_json(run.training_file)
    if training:
        charts["training"] = training_chart(training["losses"])
    solution = _read_json(run.solution_file)
    if solution:
        charts["credit"] = credit_chart(solution)
    return {name: figure.to_json() or "" for name, figure in charts.items()}


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
    """Cloning loss of every group's adapter."""
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
    figure.update_yaxes(title="loss (nats per token)", type="log", dtick=1)
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
