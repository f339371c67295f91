"""What all pages share: their charts' style, their frame, their tables in Markdown."""

from importlib.resources import files

import plotly.graph_objects as go
import pytest

from trialign_ray.chart_style import INK, figures_json, interval_bars, styled
from trialign_ray.html_page import render_page
from trialign_ray.markdown_text import markdown_table

FRAME = (
    '<style>{% include "page_style.j2" %}</style><p>{{ text }}</p>{% include "page_charts.j2" %}'
)


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "page.html.j2"
    path.write_text(FRAME)
    return path


def test_interval_bars_reach_from_the_value_to_both_ends():
    bars = interval_bars([0.5, 0.25], [(0.25, 1.0), (0.25, 0.75)], INK, thickness=2)
    assert bars["array"] == [0.5, 0.5] and bars["arrayminus"] == [0.25, 0.0]
    assert bars["symmetric"] is False and bars["thickness"] == 2 and "width" not in bars
    with pytest.raises(ValueError, match="shorter"):
        interval_bars([0.5], [], INK)


def test_a_chart_is_the_same_figure_and_may_differ_where_it_says_so():
    figure = go.Figure()
    assert styled(figure, 300, margin={"l": 1}) is figure
    layout = figure.to_plotly_json()["layout"]
    assert layout["height"] == 300 and layout["margin"] == {"l": 1}
    assert layout["font"]["color"] == INK and layout["xaxis"]["automargin"]


def test_a_page_holds_its_charts_and_what_it_is_told_is_text(template):
    chart = figures_json({"truth": go.Figure(go.Bar(x=["</script><b>"], y=[1]))})
    page = render_page(template, text="<b>bold</b>", charts=chart)
    assert "&lt;b&gt;bold" in page and "<b>bold" not in page
    assert '"truth": JSON.parse(' in page and "</script><b>" not in page
    assert "prefers-color-scheme: dark" in page.partition("</style>")[0]


def test_a_page_may_say_that_it_is_for_light_alone(template):
    template.write_text("{% set light_only = true %}" + FRAME)
    style = render_page(template, text="", charts={}).partition("</style>")[0]
    assert "--ink" in style and "prefers-color-scheme" not in style


def test_every_chart_of_a_page_takes_the_ink_that_the_page_replaces():
    own = files("trialign_ray")
    assert "chart_ink" in own.joinpath("page_charts.j2").read_text(encoding="utf-8")
    assert f"--ink:{INK};" in own.joinpath("page_style.j2").read_text(encoding="utf-8")


def test_a_table_has_a_rule_as_wide_as_its_head():
    table = markdown_table(("a", "b"), [("1", "2")])
    assert table == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]
