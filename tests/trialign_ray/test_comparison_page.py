"""The page of a comparison stands alone, shows losers, and runs nothing that data brings along."""

import json
import re

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from tests.trialign_ray.planted_comparison import first_right, plant_cell, plant_record
from trialign_ray.comparison.analysis import analyse
from trialign_ray.comparison.charts import forest, trade_off
from trialign_ray.comparison.labels import LETTER_WIDTH, Mark, label_positions
from trialign_ray.comparison.methods import Method
from trialign_ray.comparison.page import write_page
from trialign_ray.comparison.results import load
from trialign_ray.comparison.worlds import World

HOSTILE = "<script>alert('summary')</script>"
HOSTILE_GROUP = '<img src=x onerror="alert(2)">'
METHODS = {
    "behaviour": Method("behaviour", "untrained", "deployed"),
    "sft": Method("sft", "baseline", HOSTILE),
    "truth_sft": Method("truth_sft", "baseline", "better than ours here"),
    "trialign": Method("trialign", "ours", "ours"),
    "no_penalty": Method("no_penalty", "ablation", "without", tuned_as="trialign"),
}
RIGHT = {
    "behaviour": (5, 18),
    "sft": (8, 18),
    "truth_sft": (20, 20),
    "trialign": (12, 18),
    "no_penalty": (10, 18),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("comparison")
    plant_record(root, seeds=[0, 1, 2], methods=list(RIGHT))
    for seed in range(3):
        for name, right in RIGHT.items():
            if (name, seed) != ("sft", 2):
                world, groups = World("A+S", "T2", seed), ("amber", HOSTILE_GROUP)
                plant_cell(root, world, name, first_right(right, 20), groups=groups)
    return root


def traces_of(figure) -> dict[str, dict]:
    """A chart's traces by name."""
    return {trace["name"]: trace for trace in figure.to_plotly_json()["data"]}


@pytest.fixture(scope="module")
def html(root):
    """The page without plotly's own code."""
    text = write_page(load(root, METHODS), root).read_text()
    assert get_plotlyjs() in text
    return text.replace(get_plotlyjs(), "")


def charts_of(html):
    """The charts as a browser gets them."""
    found = re.findall(r'"([a-z]+-\d+)": ("(?:[^"\\]|\\.)*"),', html)
    return {name: json.loads(json.loads(spec)) for name, spec in found}


def test_nothing_is_loaded_from_outside(html):
    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=", html)
    assert "default-src 'none'" in html


def test_hostile_names_and_summaries_are_text_and_not_markup(html):
    assert "<script>alert" not in html and "<img" not in html
    assert "&lt;script&gt;alert" in html and "&lt;img src=x" in html
    hovers = json.dumps(charts_of(html)["forest-0"]["data"])
    assert "&lt;script&gt;" in hovers and "<script>" not in hovers


def test_a_method_that_beats_ours_is_marked_in_its_row(html):
    row = next(r for r in re.findall(r"<tr class=.*?</tr>", html, re.S) if "<b>truth_sft</b>" in r)
    assert 'class="marked"' in row and "BEATS" in row
    assert "truth_sft, 1.000" in html and "trialign loses" in html


def test_every_method_and_every_missing_cell_is_on_the_page(html):
    for name in RIGHT:
        assert f"<b>{name}</b>" in html
    assert "Cells that are not finished: 1<" in html and "AS-T2-s2: sft.0" in html


def test_every_chart_has_a_place_and_every_place_a_chart(html):
    places = set(re.findall(r'data-chart="([a-z]+-\d+)"', html))
    assert places == set(charts_of(html)) == {"trade-0", "forest-0", "ablations-0"}


def test_the_trade_off_shows_each_method_at_its_means_with_the_range_of_seeds(root):
    section = analyse(load(root, METHODS)).sections[0]
    traces = traces_of(trade_off(section))
    assert set(traces) == {"untrained", "baseline", "ablation", "ours"}
    assert list(traces["ours"]["y"]) == [pytest.approx(0.6)]  # 12 of 20
    assert list(traces["ours"]["error_y"]["array"]) == [pytest.approx(0)]
    assert traces["ablation"]["visible"] == "legendonly"


def test_the_forest_has_the_losing_interval_left_of_zero(root):
    section = analyse(load(root, METHODS)).sections[0]
    traces = traces_of(forest(section.rows))
    loses = traces["trialign loses"]
    assert list(loses["y"]) == ["truth_sft"]
    assert loses["x"][0] == pytest.approx(-0.4)  # .6 - 1
    assert loses["x"][0] + loses["error_x"]["array"][0] < 0


def test_a_damaged_number_does_not_reach_the_page(tmp_path):
    plant_record(tmp_path, seeds=[0], methods=["trialign"])
    plant_cell(tmp_path, World("A+S", "T2", 0), "trialign", np.ones((1, 4), int), groups=("a",))
    text = write_page(load(tmp_path, METHODS), tmp_path).read_text().replace(get_plotlyjs(), "")
    assert "NaN" not in text and "nan" not in text.lower().replace("unanswered", "")


def test_names_on_a_chart_never_lie_on_each_other_and_the_first_comes_first():
    marks = [Mark(f"method{i:02d}", 500 + 3 * (i % 4), 100 + 4 * i) for i in range(30)]
    positions = label_positions(marks, 1000)
    assert "method00" in positions and 2 < len(positions) < 30
    width = LETTER_WIDTH * len("method00")
    boxes = []
    for mark in marks:
        if mark.name in positions:
            vertical, side = positions[mark.name].split()
            left = mark.x - width if side == "left" else mark.x
            boxes.append((left, mark.y + 15 * {"top": 1, "middle": 0, "bottom": -1}[vertical]))
    for i, (x, y) in enumerate(boxes):
        for other_x, other_y in boxes[:i]:
            assert abs(x - other_x) >= width or abs(y - other_y) >= 15 - 1e-9


def test_a_name_at_the_edge_of_a_chart_stands_on_the_inner_side():
    assert label_positions([Mark("right", 995, 50)], 1000) == {"right": "top left"}
    assert label_positions([Mark("left", 5, 50)], 1000) == {"left": "top right"}
