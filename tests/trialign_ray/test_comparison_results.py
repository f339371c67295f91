"""Cells of a comparison are read whole or not at all; what is missing is named."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.trialign_ray.planted_comparison import GROUPS, first_right, plant_cell, plant_record
from trialign_ray.comparison.results import load, write_parquet
from trialign_ray.comparison.worlds import World
from trialign_ray.errors import DataError

WORLD = World("A+S", "T2", 0)


@pytest.fixture
def root(tmp_path):
    plant_record(tmp_path, seeds=[0])
    plant_cell(tmp_path, WORLD, "behaviour", first_right((1, 4, 4), 4))
    plant_cell(tmp_path, WORLD, "sft", first_right((2, 4, 4), 4))
    plant_cell(tmp_path, WORLD, "trialign", first_right((3, 4, 4), 4))
    return tmp_path


def test_a_finished_cell_is_read_with_its_figures(root):
    cell = next(c for c in load(root).cells if c.method == "trialign")
    assert cell.world == WORLD and cell.name == "AS-T2-s0/trialign.0"
    np.testing.assert_array_equal(cell.test.correct_GX, first_right((3, 4, 4), 4).astype(bool))
    assert cell.test.groups == GROUPS and cell.test.question_ids == ("q0", "q1", "q2", "q3")
    assert cell.test.metrics.worst_truth == 0.75
    assert cell.test.metrics.all_correct == 0.75
    assert cell.test.metrics.unparsed == pytest.approx(0.1 / 3)  # one of three groups has 0.1


def test_a_cell_without_a_result_is_listed_and_not_a_row(root):
    (root / "cells/AS-T2-s0/sft.0/cell.json").unlink()
    results = load(root)
    assert results.not_finished == ("AS-T2-s0/sft.0",)
    assert {c.method for c in results.cells} == {"behaviour", "trialign"}


def test_unfinished_settings_of_the_tuning_world_are_listed_too(root):
    plant_record(root, seeds=[0], tuning_world="AS-T2-s100")
    plant_cell(root, World("A+S", "T2", 100), "sft", first_right((1, 1, 1), 4), setting=1)
    missing = load(root).not_finished
    assert "AS-T2-s100/sft.0" in missing and "AS-T2-s100/sft.1" not in missing
    assert "AS-T2-s100/behaviour.0" in missing


@pytest.mark.parametrize(
    "damage",
    [
        lambda tree: tree["splits"].pop("test"),
        lambda tree: tree["splits"]["test"].pop("truth"),
        lambda tree: tree["splits"]["test"]["per_question"]["correct"]["amber"].pop(),
        lambda tree: tree["splits"]["test"]["per_question"]["question_ids"].pop(),
        lambda tree: tree["splits"]["test"]["per_question"]["correct"].update(amber=[1, 2, 0, 0]),
        lambda tree: tree["world"].update(seed=7),
        lambda tree: tree.update(method="awr"),
    ],
)
def test_a_damaged_cell_is_an_error_that_names_its_file(root, damage):
    path = root / "cells/AS-T2-s0/sft.0/cell.json"
    tree = json.loads(path.read_text())
    damage(tree)
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"AS-T2-s0/sft\.0/cell\.json"):
        load(root)


def test_half_a_file_is_an_error_that_names_it(root):
    path = root / "cells/AS-T2-s0/sft.0/cell.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(DataError, match=r"sft\.0/cell\.json.*--resume"):
        load(root)


def test_a_comparison_without_a_record_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"comparison\.json does not exist"):
        load(tmp_path)


def test_a_record_that_lacks_a_key_is_an_error_that_names_the_key(root):
    (root / "comparison.json").write_text(json.dumps({"knobs": ["A+S"]}))
    with pytest.raises(DataError, match="tracks, seeds, methods, chosen"):
        load(root)


def test_parquet_has_a_row_per_cell_and_split(root):
    results_file, _ = write_parquet(load(root), root)
    rows = pq.read_table(results_file).to_pylist()
    assert len(rows) == 3 * 2
    row = next(r for r in rows if r["method"] == "sft" and r["split"] == "test")
    assert (row["knob"], row["track"], row["seed"], row["family"]) == ("A+S", "T2", 0, "baseline")
    assert row["worst_truth"] == 0.5 and row["chosen"] and not row["tuning"]
    assert row["overrides"] == ["seed=0"] and row["jsd"] is None


def test_parquet_has_a_row_per_question_with_lists_in_the_order_of_groups(root):
    answers = [["Rome", "Oslo", "x", "x"], ["Rome"] * 4, ["Rome", "Bern", "x", "y"]]
    plant_cell(root, WORLD, "sft", first_right((2, 4, 4), 4), answers_GX=answers)
    _, questions_file = write_parquet(load(root), root)
    rows = pq.read_table(questions_file).to_pylist()
    assert len(rows) == 3 * 2 * 4
    by_key = {(r["method"], r["split"], r["question_id"]): r for r in rows}
    row = by_key["sft", "test", "q3"]
    assert row["groups"] == list(GROUPS)
    assert row["correct"] == [False, True, True] and row["answer"] == ["x", "Rome", "y"]
    assert by_key["trialign", "test", "q3"]["answer"] is None


def test_parquet_says_what_is_not_finished(root):
    (root / "cells/AS-T2-s0/sft.0/cell.json").unlink()
    for path in write_parquet(load(root), root):
        metadata = pq.read_schema(path).metadata
        assert json.loads(metadata[b"not_finished"]) == ["AS-T2-s0/sft.0"]
        assert json.loads(metadata[b"git_commit"]) == "0123456789abcdef"
