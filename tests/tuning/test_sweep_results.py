"""Trials side by side: the table, the Pareto set, volume over time, the choice per preference."""

import math
from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tuning.planted_sweep import (
    OBJECTIVES,
    failed_record,
    metrics_of,
    planted_plan,
    planted_records,
    planted_space,
    planted_summary,
)
from trialign_ray.config import load_config
from trialign_ray.run_trial import write_json
from tuning.searchers import make_searching
from tuning.sweep_choice import choose, once_on_test, write_best
from tuning.sweep_plan import OBJECTIVES as OBJECTIVE_NAMES
from tuning.sweep_plan import TrialRecord
from tuning.sweep_results import (
    overhead,
    pareto_set,
    trials_table,
    volume_over_time,
    write_trials,
)
from tuning.sweep_summary import chosen_and_tested

BEHAVIOUR = metrics_of(0.30, 0.10, 0.94)
grades = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])  # few, so that ties are common
figures = st.lists(st.tuples(grades, grades, grades), min_size=1, max_size=14)


def bare(rows: list[tuple[float, float, float]]) -> list[TrialRecord]:
    """Finished trials with those objectives and nothing else."""
    names = OBJECTIVE_NAMES
    return [
        TrialRecord(f"t{i}", {}, (), "done", dict(zip(names, row, strict=True)), finished_at=i)
        for i, row in enumerate(rows)
    ]


@settings(max_examples=60, deadline=None)
@given(figures)
def test_the_pareto_set_is_optunas_own_with_all_ties(rows):
    study = optuna.create_study(directions=["maximize", "maximize", "maximize"])
    for row in rows:
        study.add_trial(optuna.create_trial(values=list(row)))
    assert pareto_set(bare(rows)) == sorted(trial.number for trial in study.best_trials)


def test_the_pareto_set_is_the_one_of_the_study_that_searched(tmp_path):
    """Through Ray Tune's own searcher: the trials as it told them to Optuna."""
    searcher = make_searching(replace(planted_plan(), num_trials=7), planted_space()).search_alg
    records = planted_records(tmp_path)
    for record in records:
        searcher.suggest(record.trial_id)
        searcher.on_trial_complete(
            record.trial_id, {**record.metrics, "training_iteration": 1, "step": 60}
        )
    told = searcher.searcher
    numbers = {told._ot_trials[r.trial_id].number: i for i, r in enumerate(records)}
    best = sorted(numbers[trial.number] for trial in told._ot_study.best_trials)
    assert pareto_set(records) == best == [0, 1, 2, 3, 6]


def test_trials_that_were_not_trained_out_are_on_no_front(tmp_path):
    records = planted_records(tmp_path)
    perfect = metrics_of(1.0, 1.0, 1.0)
    stopped = replace(records[0], status="stopped", metrics=perfect)
    nothing = replace(records[1], metrics={**perfect, "all_correct": math.nan})
    unfit = [stopped, nothing, failed_record(tmp_path)]
    assert pareto_set([*unfit, *records[2:]]) == [3 + i for i in pareto_set(records[2:])]
    assert pareto_set(unfit) == [] and volume_over_time(unfit) == []


def test_volume_grows_trial_by_trial_in_the_order_in_which_they_ended(tmp_path):
    records = planted_records(tmp_path, [(0.5, 0.5, 0.5), (0.4, 0.4, 0.4), (1.0, 0.5, 0.5)])
    late_first = [records[2], records[0], records[1]]
    found = volume_over_time(late_first)
    assert [trial_id for _, _, trial_id in found] == ["t0000", "t0001", "t0002"]
    # .5^3 = .125; a beaten one adds nothing; 1 x .5 x .5 = .25
    assert [volume for _, volume, _ in found] == pytest.approx([0.125, 0.125, 0.25])
    # the first began 10 s before it ended
    assert [seconds for seconds, _, _ in found] == pytest.approx([10.0, 20.0, 30.0])


def test_the_table_has_a_row_per_trial_and_nothing_where_a_key_was_not_read(tmp_path):
    records = [*planted_records(tmp_path), failed_record(tmp_path)]
    table = trials_table(records)
    assert table["trial_id"].tolist() == [r.trial_id for r in records]
    assert table["on_front"].tolist().count(True) == 5
    assert table["wall_s_clone"].tolist()[:-1] == [5.0] * len(OBJECTIVES)
    exponents = [r.params.get("targets.welfare_exponent") for r in records]
    assert None in exponents and len(set(exponents)) > 1
    found = table["targets.welfare_exponent"].astype(object)
    assert found.where(found.notna(), None).tolist() == exponents
    assert math.isnan(table["worst_truth"].tolist()[-1])
    assert table["status"].tolist()[-1] == "failed"


def test_the_table_is_read_back_from_both_files(tmp_path):
    records = [*planted_records(tmp_path), failed_record(tmp_path)]
    mixed = replace(records[0], params={**records[0].params, "clone.extraction": None})
    named = replace(records[1], params={**records[1].params, "clone.extraction": "dpo"})
    odd = replace(records[2], params={**records[2].params, "clone.extraction": 3})
    parquet, csv = write_trials([mixed, named, odd, *records[3:]], tmp_path)
    for table in (pd.read_parquet(parquet), pd.read_csv(csv)):
        assert table["trial_id"].tolist() == [r.trial_id for r in records]
        assert table["worst_truth"].iloc[0] == 0.9


def test_time_goes_into_parts_and_the_rest_is_overhead(tmp_path):
    records = planted_records(tmp_path)[:4]  # each 10 s: start 2, targets 1, clone 5, evaluate 1
    found = overhead(records, {"prepare_s": 7.0, "trials_s": 25.0}, 2)
    assert found.trials_s == 40.0 and found.by_part["clone"] == 20.0
    # two places for 25 s: 50; useful 4 x 7 = 28, starting 4 x 2 = 8
    assert found.share == pytest.approx(1 - 28 / 50)
    assert found.start_share == pytest.approx(8 / 50) and found.busy == pytest.approx(40 / 50)
    assert "7 s once for all trials, then 25 s" in found.words() and "44%" in found.words()
    assert overhead([], {}, 1).share == 0.0


def test_each_preference_takes_the_trial_that_serves_it_best_on_validation(tmp_path):
    choices = {c.preference.name: c for c in choose(planted_records(tmp_path), BEHAVIOUR)}
    chosen = {name: c.record.trial_id for name, c in choices.items() if c.record}
    assert chosen == {
        "truth": "t0006",  # behaviour's style is .94: .92 counts
        "all_correct": "t0002",
        "style": "t0006",  # the most truth is .90: .88 is 2 points below and counts
        "balanced": "t0006",
    }


def test_equal_trials_are_told_apart_by_the_other_objectives_then_by_time(tmp_path):
    rows = [(0.9, 0.7, 0.95), (0.9, 0.8, 0.95), (0.9, 0.8, 0.95)]
    truth = choose(planted_records(tmp_path, rows), BEHAVIOUR)[0]
    assert truth.record is not None and truth.record.trial_id == "t0001"


def test_a_preference_that_no_trial_serves_says_why(tmp_path):
    records = planted_records(tmp_path, [(0.9, 0.8, 0.5), (0.8, 0.8, 0.6)])
    kept = next(c for c in choose(records, BEHAVIOUR) if c.preference.bar == "behaviour")
    assert kept.record is None and "the bar is 0.920, the best trial has 0.600" in kept.reason
    unknown = next(c for c in choose(records, None) if c.preference.bar == "behaviour")
    assert "behaviour model was not evaluated" in unknown.reason
    assert all("no trial was trained" in c.reason for c in choose([], BEHAVIOUR))


def test_a_trial_is_once_on_test_whoever_asks(tmp_path):
    record = planted_records(tmp_path)[0]
    asked = []

    def evaluate(folder):
        asked.append(folder)
        return {"aligned": metrics_of(0.5, 0.5, math.nan), "behaviour": BEHAVIOUR}

    first = once_on_test(record, evaluate)
    assert once_on_test(record, evaluate)["behaviour"] == first["behaviour"] == BEHAVIOUR
    assert math.isnan(first["aligned"]["worst_adherence"])
    assert [str(folder) for folder in asked] == [record.folder]


def test_only_chosen_trials_are_tested_and_a_choice_never_looks_at_test(tmp_path):
    records, asked = planted_records(tmp_path), []

    def worst_for_the_chosen(folder):
        asked.append(folder.name)
        return {"aligned": metrics_of(0.0, 0.0, 0.0), "behaviour": BEHAVIOUR}

    choices, before = chosen_and_tested(records, BEHAVIOUR, tmp_path, worst_for_the_chosen)
    assert sorted(asked) == ["t0002", "t0006"] and before == BEHAVIOUR
    again, _ = chosen_and_tested(records, BEHAVIOUR, tmp_path, worst_for_the_chosen)
    assert again == choices and len(asked) == 2


def test_the_best_configurations_are_whole_and_say_where_they_come_from(tmp_path):
    summary = planted_summary(tmp_path)
    for choice in summary.choices:
        assert choice.record is not None and choice.file is not None and choice.test is not None
        assert choice.file.name == f"{choice.preference.name}.yaml"
        chosen = load_config(choice.file)
        assert chosen == load_config(tmp_path / "trials" / choice.record.trial_id / "config.yaml")
        assert chosen == load_config(None, list(choice.record.overrides))
        text = choice.file.read_text()
        assert choice.preference.words in text and choice.record.trial_id in text
        assert f"worst_truth {choice.record.metrics['worst_truth']:.3f}" in text
        assert f"worst_truth {choice.test['worst_truth']:.3f}" in text


def test_a_configuration_whose_figures_it_cannot_give_again_says_so(tmp_path):
    records = planted_records(tmp_path)
    for record in records:
        write_json(Path(record.folder) / "adopted.json", {"donor": "t9 at step 30"})
    text = {}
    for trials in (records, [replace(r, folder=str(tmp_path / "own")) for r in records]):
        choice = choose(trials, BEHAVIOUR)[1]
        assert choice.record is not None
        text[choice.record.folder] = write_best(choice, load_config(None), tmp_path).read_text()
    taken, own = text.values()
    assert "# these figures are of the adapters in" in taken and "t9 at step 30" in taken
    assert "training from this file gives others" in taken
    assert "these figures" not in own
