"""A group without style rules has nothing to break: its adherence is unknown, not perfect."""

import json

import numpy as np
import pytest
import yaml
from rich.console import Console

from envs.groups import Group, load_pack
from envs.judge import Judge
from envs.preferences import StyleRules, StyleScorer
from envs.prompts import plain_text
from envs.types import Judgement, Question
from tests.trialign_ray.planted_comparison import first_right, plant_cell
from tests.trialign_ray.small_runs import run_to_report, small_run_config
from trialign_ray.comparison.cell_results import read_cell
from trialign_ray.comparison.methods import all_methods
from trialign_ray.comparison.rows import make_rows
from trialign_ray.comparison.worlds import World
from trialign_ray.config_sections import EvaluateConfig
from trialign_ray.display import result_table
from trialign_ray.metrics import (
    Answers,
    Protocol,
    adherence_metrics,
    adherence_record,
    compare_models,
)
from trialign_ray.summary import summarise

POLITE = Group(name="polite", profile="a", style=StyleRules(greeting="Hello."))
BRIEF = Group(name="brief", profile="b", style=StyleRules(max_words=2))
PLAIN = Group(name="plain", profile="c")
TEXTS = {
    "polite": ["Hello. Paris it is.", "Rome."],
    "brief": ["Paris.", "It is Rome, I say."],
    "plain": ["Paris.", "Rome."],
}


def asked(*groups: Group) -> tuple[Protocol, Answers]:
    questions = [Question(f"q{i}", "Where?", gold=("Paris",)) for i in range(2)]
    judge = Judge(StyleScorer({g.name: g.style for g in groups}))
    config = EvaluateConfig(num_resamples=100)
    protocol = Protocol(questions, groups, judge, plain_text, config, 8, 8, 0)
    judged = {g.name: [Judgement("Paris", 1.0, None), Judgement("Rome", 0.0, None)] for g in groups}
    return protocol, Answers({g.name: TEXTS[g.name] for g in groups}, judged)


def test_it_has_no_adherence_and_no_part_in_the_worst_or_in_what_is_nobodys():
    found = adherence_metrics(*asked(POLITE, BRIEF, PLAIN))
    assert found["by_group"] == {"polite": 0.5, "brief": 0.5, "plain": None}
    assert found["worst"] == 0.5 and found["ci"]["plain"] is None
    # polite's answers: one of two greets, one of two is brief; plain's lack of rules is no rule
    assert found["swap"] == {"polite": 0.0, "brief": 0.5, "plain": None}
    assert found["swap"] == {**adherence_metrics(*asked(POLITE, BRIEF))["swap"], "plain": None}


def test_where_no_group_has_rules_there_is_no_worst():
    protocol, answers = asked(PLAIN)
    found = adherence_metrics(protocol, answers)
    assert found["worst"] is None and found["by_group"] == {"plain": None}
    assert adherence_record(protocol, answers) == {"plain": None}


def test_two_models_are_compared_in_the_style_of_those_that_have_one():
    protocol, answers = asked(BRIEF, PLAIN)
    record = adherence_record(protocol, answers)
    assert record == {"brief": [1, 0], "plain": None}
    correct = {"brief": [1, 0], "plain": [1, 0]}
    before = {"per_question": {"correct": correct, "adherence": record}}
    after = {"per_question": {"correct": correct, "adherence": {**record, "brief": [1, 1]}}}
    found = compare_models(protocol, before, after)
    assert found["adherence_by_group"]["plain"] is None
    assert found["adherence_by_group"]["brief"]["difference"] == 0.5
    assert set(found["truth_by_group"]) == {"brief", "plain"}


def test_a_comparison_reads_it_as_a_group_that_breaks_nothing(tmp_path):
    path = plant_cell(tmp_path, World("A+S", "T2", 0), "sft", first_right((4, 3, 2), 6))
    tree = json.loads(path.read_text())
    for split in tree["splits"].values():
        records = split["per_question"]["adherence"]
        first, *others = records
        records.update(dict.fromkeys(others))
        split["adherence"]["explicit"]["worst"] = float(np.mean(records[first]))
    path.write_text(json.dumps(tree))
    test = read_cell(path).test
    assert test.adherence_GA[1:].all() and test.adherence_GA.shape == test.correct_GX.shape
    for split in tree["splits"].values():
        split["per_question"]["adherence"] = dict.fromkeys(split["per_question"]["adherence"])
        split["adherence"] = {"explicit": {"worst": None}}
    path.write_text(json.dumps(tree))
    test = read_cell(path).test
    assert test.metrics.adherence_explicit_worst is None and test.adherence_GA.all()
    methods = [m for m in all_methods().values() if m.name == "sft"]
    (row,) = make_rows(methods, {"sft": {0: read_cell(path)}}, ("t",))
    assert row.style is None and row.keeps_style  # nothing is lost where nothing is asked


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """TruthWorld's first two groups, the second without its rules."""
    folder = tmp_path_factory.mktemp("plain")
    amber, birch = (g.model_dump(mode="json") for g in load_pack("truthworld").groups[:2])
    del birch["style"]
    pack = folder / "pack.yaml"
    pack.write_text(yaml.safe_dump({"groups": [amber, birch]}))
    config = small_run_config(folder, f"world.groups={pack}", "evaluate.multiple_choice=generate")
    recipe = run_to_report(folder / "run", config)
    recipe.close()
    recipe.progress.close()
    return recipe.run_dir


def test_a_whole_run_says_of_it_that_there_is_nothing_to_know(run):
    evaluation = json.loads(run.evaluation_file.read_text())
    for model in evaluation["models"].values():
        adherence = model["adherence"]["explicit"]
        assert adherence["by_group"]["birch"] is None
        assert adherence["worst"] == adherence["by_group"]["amber"]
        assert model["per_question"]["adherence"]["birch"] is None
    assert json.loads(run.selection_file.read_text())["passed"] is not None, "the guard judges"
    card = (run.adapter_dir("birch") / "README.md").read_text()
    assert card.count("] | - |") == 3, "truth with its interval, no style, of three models"
    console = Console(record=True, width=120)
    console.print(result_table(summarise(evaluation, run)))
    (line,) = (li for li in console.export_text().splitlines() if "birch" in li)
    assert line.split()[-4:] == ["-", "│", "-", "│"]
    report = (run.root / "report.md").read_text().splitlines()
    first = next(li for li in report if li.startswith("| birch |"))
    assert first.split("|")[-3].strip() == first.split("|")[-2].strip() != "1.000"
