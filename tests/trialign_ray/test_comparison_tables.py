"""Tables of a comparison say who wins, who ties and who loses, and how sure that is."""

import re

import numpy as np
import pytest
from rich.console import Console

from tests.trialign_ray.planted_comparison import GROUPS, first_right, plant_cell, plant_record
from trialign_ray.comparison.analysis import Analysis, analyse
from trialign_ray.comparison.methods import Family, Method
from trialign_ray.comparison.results import load
from trialign_ray.comparison.rows import Row
from trialign_ray.comparison.tables import markdown, terminal
from trialign_ray.comparison.worlds import World
from trialign_ray.errors import DataError

NUM = 40
SEEDS = (0, 1, 2)
RIGHT = {
    "base": (40, 40, 40),
    "behaviour": (8, 38, 39),
    "sft": (10, 36, 36),
    "twin": (30, 38, 40),
    "winner": (40, 39, 40),
    "trialign": (30, 38, 40),
    "no_penalty": (20, 36, 36),
}
"""By method, how many of 40 facts each group is told rightly; the worst group decides."""
FAMILIES: dict[str, Family] = {
    "base": "untrained",
    "behaviour": "untrained",
    "trialign": "ours",
    "no_penalty": "ablation",
}
METHODS = {
    name: Method(
        name,
        FAMILIES.get(name, "baseline"),
        f"what {name} is | in short",
        calls=None if name == "winner" else 1,
    )
    for name in RIGHT
}
HEADS = {
    "vote_accuracy": 0.5,
    "coverage": 1.0,
    "heads": {
        "joint": {"accuracy": 0.9, "brier": 0.1, "ece": 0.2, "log_loss": 0.3},
        "labels": {"accuracy": None, "brier": None, "ece": None, "log_loss": None},
    },
}


def plant(root, seeds=SEEDS, groups=GROUPS, order=(0, 1, 2)):
    """All methods in A+S T2, base in no style at all; groups in the order of `order`."""
    names = [groups[i] for i in order]
    plant_record(root, seeds=list(seeds), methods=list(RIGHT))
    for seed in seeds:
        for name, right in RIGHT.items():
            correct = first_right(right, NUM)[list(order)]
            style = np.full_like(correct, name != "base")
            heads = HEADS | {"vote_accuracy": 0.5 + 0.1 * seed} if name == "trialign" else None
            world = World("A+S", "T2", seed)
            plant_cell(root, world, name, correct, style_GX=style, groups=names, heads=heads)


@pytest.fixture(scope="module")
def analysis(tmp_path_factory) -> Analysis:
    root = tmp_path_factory.mktemp("comparison")
    plant(root)
    return analyse(load(root, METHODS))


def rows_of(analysis: Analysis) -> dict[str, Row]:
    section = analysis.sections[0]
    return {r.method.name: r for r in (*section.ablations, *section.rows)}


def printed(source) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in terminal(source):
        console.print(table)
    return console.export_text()


def test_rows_stand_by_the_worst_groups_truth_best_first(analysis):
    names = [row.method.name for row in analysis.sections[0].rows]
    assert names == ["base", "winner", "twin", "trialign", "sft", "behaviour"]
    # amber's 30, 10 and 8 of 40
    assert rows_of(analysis)["trialign"].truth.mean == pytest.approx(0.75)
    assert rows_of(analysis)["sft"].truth.mean == pytest.approx(0.25)
    assert rows_of(analysis)["behaviour"].truth.mean == pytest.approx(0.2)


def test_the_difference_is_ours_minus_theirs_and_its_interval_has_the_sign(analysis):
    rows = rows_of(analysis)
    loser, winner = rows["sft"].versus, rows["base"].versus
    assert loser is not None and winner is not None
    assert loser.truth.mean == pytest.approx(0.5)  # .75 - .25
    assert 0 < loser.truth.interval[0] < 0.5 < loser.truth.interval[1]
    assert winner.truth.mean == pytest.approx(-0.25)  # .75 - 1
    assert winner.truth.interval[0] < -0.25 < winner.truth.interval[1] < 0


def test_who_beats_or_ties_ours_is_marked_and_the_loser_is_still_there(analysis):
    rows = rows_of(analysis)
    verdicts = {n: r.versus.verdict for n, r in rows.items() if r.versus}
    assert verdicts == {
        "base": "beats",
        "winner": "beats",
        "twin": "ties",  # the same answers: difference and interval are 0
        "sft": "behind",
        "behaviour": "behind",
        "no_penalty": "behind",
    }
    assert {n for n, r in rows.items() if r.marked} == {"base", "winner", "twin"}


def test_lost_style_is_told_and_keeps_a_method_out_of_the_best(analysis):
    assert not rows_of(analysis)["base"].keeps_style
    section = analysis.sections[0]
    best, single = (rival.row for rival in section.rivals)
    assert best is not None and best.method.name == "winner"
    assert single is not None and single.method.name == "twin"  # winner asks every group: G + 1
    assert best.calls == len(GROUPS) + 1


def test_our_style_is_not_inferior_exactly_if_its_lower_bound_is_above_two_points(tmp_path):
    plant_record(tmp_path, seeds=[0, 1], methods=["behaviour", "sft", "trialign"])
    truth = first_right((20, 20, 20), NUM)
    ours = first_right((36, 40, 40), NUM)
    for seed in (0, 1):
        world = World("A+S", "T2", seed)
        plant_cell(tmp_path, world, "trialign", truth, style_GX=ours)
        plant_cell(tmp_path, world, "behaviour", truth, style_GX=np.ones_like(truth))  # 10 points
        plant_cell(tmp_path, world, "sft", truth, style_GX=ours)  # the same
    rows = rows_of(analyse(load(tmp_path)))
    versus = {name: rows[name].versus for name in ("behaviour", "sft")}
    assert versus["behaviour"] is not None and versus["sft"] is not None
    assert versus["behaviour"].style_kept is False
    assert versus["sft"].style_kept is True
    assert not rows["trialign"].keeps_style


def test_one_seed_has_no_interval_and_who_is_not_behind_is_marked(tmp_path):
    plant(tmp_path, seeds=(0,))
    analysis = analyse(load(tmp_path, METHODS))
    rows = rows_of(analysis)
    assert all(r.versus.verdict == "one seed" for r in rows.values() if r.versus)
    assert {n for n, r in rows.items() if r.marked} == {"base", "winner", "twin"}
    assert "+0.500 (one seed)" in markdown(analysis)
    assert "nan" not in markdown(analysis) and "nan" not in printed(analysis)


def test_the_order_of_groups_changes_nothing(analysis, tmp_path):
    plant(tmp_path, order=(2, 0, 1))
    other = analyse(load(tmp_path, METHODS))
    assert markdown(other) == markdown(analysis)


def test_a_method_without_all_seeds_is_paired_on_those_it_has_and_noted(tmp_path):
    plant(tmp_path)
    (tmp_path / "cells/AS-T2-s1/sft.0/cell.json").unlink()
    analysis = analyse(load(tmp_path, METHODS))
    row = rows_of(analysis)["sft"]
    assert row.seeds == (0, 2) and row.versus is not None
    assert len(row.versus.truth.by_seed) == 2
    assert analysis.notes == ("fewer than 3 seeds in A+S T2: sft 2",)
    for text in (markdown(analysis), printed(analysis)):
        assert "AS-T2-s1: sft.0" in text


def test_cells_that_were_asked_other_questions_are_an_error(tmp_path):
    plant(tmp_path)
    plant_cell(tmp_path, World("A+S", "T2", 1), "sft", first_right((1, 1, 1), NUM + 1))
    with pytest.raises(DataError, match=r"AS-T2-s1/sft\.0 and AS-T2-s1/trialign\.0"):
        analyse(load(tmp_path, METHODS))


def test_the_area_of_a_sweep_is_that_of_its_union_of_boxes(tmp_path):
    tuning = World("A+S", "T2", 100)
    plant_record(tmp_path, seeds=[0], methods=["sft"], tuning_world=tuning.name)
    # (truth, style) = (.5, 1), (.8, .5) and (.4, .4), which the first dominates:
    # .5 x 1 + (.8 - .5) x .5 = .65
    for setting, (truth, style) in enumerate(((5, 10), (8, 5), (4, 4))):
        correct, kept = first_right((truth, 10, 10), 10), first_right((10, style, 10), 10)
        plant_cell(tmp_path, tuning, "sft", correct, setting=setting, style_GX=kept)
    analysis = analyse(load(tmp_path))
    assert [(s.method.name, s.volume) for s in analysis.sweeps] == [("sft", pytest.approx(0.65))]
    assert not analysis.sections  # of the tuning world there is no row
    assert "| sft | 0.650 |" in markdown(analysis)


def test_truth_heads_are_averaged_over_the_seeds_that_know_something(analysis):
    lines = {line.head: line for line in analysis.sections[0].heads}
    assert (lines["joint"].accuracy, lines["joint"].num_seeds) == (pytest.approx(0.9), 3)
    assert (lines["labels"].accuracy, lines["labels"].num_seeds) == (None, 0)
    assert lines["(plain vote)"].accuracy == pytest.approx(0.6)  # mean of .5, .6, .7


def test_markdown_has_every_method_and_says_where_its_figures_are_from(analysis):
    text = markdown(analysis)
    for name in RIGHT:
        assert re.search(rf"^\| \**{name}\** \|", text, re.M), name
    for fact in ("trialign compare --methods", "0123456789ab", "seeds: 0-2", "test facts: 40"):
        assert fact in text
    assert "trialign loses" in text  # against the best baseline that keeps the style
    assert re.search(r"^\| winner .*\*\*BEATS\*\*", text, re.M)
    assert re.search(r"^\| twin .*\*\*ties\*\*", text, re.M)


def test_every_markdown_table_has_as_many_cells_in_each_line_though_a_summary_has_a_bar(analysis):
    blocks = re.findall(r"(?:^\|.*\n)+", markdown(analysis), re.M)
    assert len(blocks) >= 4
    for block in blocks:
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(counts) == 1, block


def test_the_terminal_shows_every_method_whole_within_a_hundred_columns(analysis):
    text = printed(analysis)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for name in RIGHT:
        assert re.search(rf"^ *{name} ", text, re.M), name
    assert re.search(r"^ *winner .*BEATS", text, re.M)


def test_worlds_of_another_knob_are_told_in_one_compact_table(tmp_path):
    plant(tmp_path)
    for seed in SEEDS:
        for name, right in RIGHT.items():
            plant_cell(tmp_path, World("B", "T2", seed), name, first_right(right, NUM))
    plant_record(tmp_path, knobs=["A+S", "B"], seeds=list(SEEDS), methods=list(RIGHT))
    analysis = analyse(load(tmp_path, METHODS))
    assert [s.name for s in analysis.main] == ["A+S T2"]
    assert [s.name for s in analysis.secondary] == ["B T2"]
    text = markdown(analysis)
    assert "| winner | baseline | 0.975 > |" in text
    assert "| twin | baseline | 0.750 = |" in text
    assert "| sft | baseline | 0.250 |" in text
    assert "0.975 >" in printed(analysis)


def test_cells_of_settings_that_were_not_chosen_are_mentioned(tmp_path):
    plant(tmp_path)
    plant_cell(tmp_path, World("A+S", "T2", 0), "sft", first_right((40, 40, 40), NUM), setting=1)
    analysis = analyse(load(tmp_path, METHODS))
    assert rows_of(analysis)["sft"].truth.high == pytest.approx(0.25)
    assert "AS-T2-s0/sft.1" in analysis.notes[0]


def test_without_our_own_method_there_are_rows_and_no_differences(tmp_path):
    plant_record(tmp_path, seeds=[0], methods=["sft"])
    plant_cell(tmp_path, World("A+S", "T2", 0), "sft", first_right((10, 20, 20), NUM))
    text = markdown(load(tmp_path))
    assert "trialign has no result in A+S T2." in text and "| sft | baseline |" in text
