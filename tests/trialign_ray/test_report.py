"""The report renders whatever the run was, and says what it knows beside the held-out figures."""

import json
import shutil
from html import escape

import pytest

from tests.trialign_ray.small_runs import run_to_report, small_run_config
from trialign_ray.checkpoint import write_json
from trialign_ray.guard import read_guard
from trialign_ray.launch import show_result
from trialign_ray.report import write_report
from trialign_ray.report_controls import HOW_TO_READ_GAPS
from trialign_ray.report_sections import estimate_rows, head_rows, section_lines
from trialign_ray.run_directory import RunDirectory


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


def finish(folder, name, *overrides, log_of=None):
    config = small_run_config(folder, "world.num_groups=2", *overrides)
    recipe = run_to_report(folder / name, config, log_of)
    recipe.close()
    recipe.progress.close()
    return recipe.run_dir


@pytest.fixture(scope="module")
def central(folder):
    return finish(folder, "trialign", "world.num_controls=2")


def pages(run):
    return (run.root / "report.html").read_text(), (run.root / "report.md").read_text()


def guard_of(run):
    guard = read_guard(run)
    assert guard is not None
    return guard


def test_the_central_runs_report_has_heads_estimates_and_verdict(central):
    html, markdown = pages(central)
    assert "Who the centre worked for" in html and "certified gap" in html
    for page in (html, markdown):
        for head in ("joint", "dawid_skene", "majority", "labels"):
            assert head in page
        assert "a plain vote" in html and "calibration error" in page
        assert "adapter, WIS" in page and guard_of(central)["verdict"][5:] in page
    assert "| **joint** (configured) |" in markdown
    assert html.count('<tr class="own">') == 1


def test_users_of_no_group_stand_beside_the_groups(central):
    html, markdown = pages(central)
    for page in (html, markdown):
        assert HOW_TO_READ_GAPS in page or escape(HOW_TO_READ_GAPS) in page
        assert "control-2" in page and "no persona, adapter of birch" in page
        assert "How well preferences like the answers" in page
    assert '<div class="chart" id="chart-controls">' in html and '"controls": JSON.parse' in html
    gap = json.loads(central.evaluation_file.read_text())["controls"]["personas"]["gap"]
    assert f"| neutral personas, before | 2 | {gap:.3f} |" in markdown


@pytest.mark.parametrize("algorithm", ["sft", "dpo", "pooled_dpo"])
def test_algorithms_without_a_central_problem_render(folder, central, algorithm):
    run = finish(folder, algorithm, f"algorithm={algorithm}", log_of=central)
    html, markdown = pages(run)
    assert "Who the centre worked for" not in html and "certified gap" not in html
    assert "adapter, WIS" in html and "adapter, WIS" in markdown
    assert "no persona, adapter of amber" in html and HOW_TO_READ_GAPS not in markdown
    serves_all = algorithm == "pooled_dpo"
    assert ("One adapter serves all groups" in html) is serves_all
    assert ('\\"name\\":\\"all groups\\"' in html) is serves_all  # the curve of its loss


def test_a_run_from_before_these_sections_renders_without_them(central, tmp_path):
    run = RunDirectory((tmp_path / "old").resolve())
    shutil.copytree(central.root, run.root)
    run.off_policy_file.unlink()
    run.selection_file.unlink()
    run.critic_report.unlink()
    evaluation = json.loads(run.evaluation_file.read_text())
    del evaluation["controls"]
    for model in evaluation["models"].values():
        del model["preference"]
    write_json(run.evaluation_file, evaluation)
    write_report(run)
    html, markdown = pages(run)
    for page in (html, markdown):
        assert "no persona" not in page and "preferences like" not in page
    assert "chart-controls" not in html
    assert "Before the test questions" not in html and "WIS" not in markdown
    assert "dawid_skene" not in html


def test_a_failed_guard_is_a_warning_on_page_and_terminal(central, tmp_path, capsys):
    run = RunDirectory((tmp_path / "failed").resolve())
    shutil.copytree(central.root, run.root)
    show_result(central)
    passed = guard_of(central)["passed"]
    assert ("Warning" in capsys.readouterr().out) == (not passed)
    verdict = "the adapters do not beat the personalized model: truth of amber falls"
    write_json(run.selection_file, {"passed": False, "verdict": verdict})
    write_report(run)
    html, markdown = pages(run)
    assert f'<p class="bad">Warning: {verdict}.</p>' in html and f"Warning: {verdict}." in markdown
    show_result(run)
    assert f"Warning: {verdict}." in capsys.readouterr().out


ESTIMATE = {"value": 0.5, "ci": [0.4, 0.6]}


def truth(**changes):
    known = dict.fromkeys(("behaviour", "wis", "dr", "fqe"), ESTIMATE)
    weight = {"value": 1.1, "ci": [0.9, 1.3]}
    return {**known, "mean_weight": weight, "ess": 41.0, "num": 90, "refused": None} | changes


def rows_of(temperature=1.0, **changes):
    estimates = {
        "min_ess": 30.0,
        "temperature": temperature,
        "groups": {"amber": {"rewards": {"truth": truth(**changes)}}},
    }
    evaluation = {"models": {"aligned": {"truth": {"by_group": {"amber": 0.75}}}}}
    return estimate_rows(estimates, evaluation, ["amber"])


REFUSED = {"wis": None, "dr": None, "mean_weight": None, "refused": "effective sample size ..."}


def test_a_refused_group_says_so_beside_what_was_measured():
    (row,) = rows_of(**REFUSED, ess=7.72)
    assert row.refused == "refused: ESS 7.7 < 30" and row.measured == "0.750"
    line = section_lines([], [row], None)[-4]
    assert line.startswith("| amber | 0.500 | refused: ESS 7.7 < 30 |")
    assert line.count("|") == 9 and "| 0.500 [0.40, 0.60] | 0.750 |" in line  # FQE is not refused
    (row,) = rows_of(temperature=0.7, **REFUSED)
    assert "temperature 0.7" in row.refused
    (row,) = rows_of(**REFUSED | {"num": 0, "ess": 0.0, "behaviour": None})
    assert "no answer of the log" in row.refused and row.logged == "–"


def test_a_mean_weight_that_is_surely_not_one_is_marked():
    assert not rows_of()[0].off
    (row,) = rows_of(mean_weight={"value": 1.3, "ci": [1.1, 1.5]})
    assert row.off and "| **1.300** |" in section_lines([], [row], None)[-4]
    assert not rows_of(mean_weight={"value": 1.3, "ci": [None, None]})[0].off


def test_heads_stand_in_the_order_of_their_accuracy():
    nothing = dict.fromkeys(("accuracy", "brier", "ece", "log_loss"))
    better = {"accuracy": 0.9, "brier": 0.01, "ece": 0.02, "log_loss": 0.1}
    worse = {**better, "accuracy": 0.8}
    rows = head_rows({"heads": {"labels": nothing, "majority": worse, "joint": better}}, "majority")
    assert [r.name for r in rows] == ["joint", "majority", "labels"]
    assert [r.configured for r in rows] == [False, True, False]
    assert rows[0].accuracy == "90.0 %" and rows[2].brier == "–"
    assert head_rows(None, "joint") == [] == head_rows({"num_hidden": 3}, "joint")
