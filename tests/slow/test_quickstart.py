"""What the README promises of the quickstart, on the real thing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trialign_ray.runs import adapter_hashes
from trialign_ray.dataset import read_dataset
from trialign_ray.run_directory import RunDirectory

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]


def quickstart(folder: Path, *arguments: str) -> tuple[RunDirectory, dict, str]:
    command = [sys.executable, "-m", "trialign_ray", "quickstart", "--run-dir", str(folder)]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    result = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    run = RunDirectory(folder)
    return run, json.loads(run.evaluation_file.read_text()), result.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return quickstart(tmp_path_factory.mktemp("quickstart") / "run")


def style(evaluation, model, mode="explicit"):
    return evaluation["models"][model]["adherence"][mode]["by_group"]


def test_the_worst_group_goes_from_a_quarter_to_nine_tenths(finished):
    _, evaluation, _ = finished
    models = evaluation["models"]
    assert models["behaviour"]["truth"]["worst"] <= 0.25
    assert models["aligned"]["truth"]["worst"] >= 0.90
    assert models["aligned"]["consistency"]["all_correct"] >= 0.85
    assert evaluation["aligned_minus_behaviour"]["worst_truth"]["ci"][0] > 0.5


def test_every_group_keeps_its_style(finished):
    _, evaluation, _ = finished
    for mode in ("explicit", "implicit"):
        for group, before in style(evaluation, "behaviour", mode).items():
            assert style(evaluation, "aligned", mode)[group] >= before - 0.02, (group, mode)


def test_the_base_was_fair_before_it_was_personalized(finished):
    _, evaluation, _ = finished
    assert evaluation["models"]["facts_base"]["truth"]["gap"] < 0.02
    assert evaluation["models"]["facts_base"]["truth"]["worst"] > 0.98


def test_agents_sometimes_change_their_mind_when_they_hear_their_peers(finished):
    run, _, _ = finished
    first, later = {}, {}
    for row in read_dataset(run.log_file):
        for group, answer in zip(row["group_ids"], row["parsed_answer"], strict=True):
            (later if row["turn"] else first)[row["episode_id"], group] = answer
    switched = sum(later[key] != first[key] for key in first) / len(first)
    assert 0.05 < switched < 0.6


def test_printed_figures_come_from_the_evaluation(finished):
    _, evaluation, printed = finished
    worst = evaluation["models"]["aligned"]["truth"]["worst"]
    assert f"-> {worst:.3f}" in printed
    for value in evaluation["models"]["aligned"]["truth"]["by_group"].values():
        assert f"{value:.3f}" in printed


def test_the_same_seed_gives_the_same_adapters(finished, tmp_path):
    run, evaluation, _ = finished
    again, second, _ = quickstart(tmp_path / "again")
    assert adapter_hashes(again) == adapter_hashes(run)
    assert second == evaluation


def test_the_clean_control_hurts_nobody(tmp_path):
    _, evaluation, _ = quickstart(
        tmp_path / "clean",
        "--set",
        "world.corruption.systematic_myth=0",
        "--set",
        "world.corruption.sycophancy=0",
    )
    models = evaluation["models"]
    for group, before in models["behaviour"]["truth"]["by_group"].items():
        assert models["aligned"]["truth"]["by_group"][group] >= before - 0.02, group
        assert style(evaluation, "aligned")[group] >= style(evaluation, "behaviour")[group] - 0.02


def test_the_report_renders_in_a_browser_without_the_network(finished, tmp_path):
    run, _, _ = finished
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine to render the report with")
    result = subprocess.run(
        [
            browser,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *("--virtual-time-budget=10000", f"--user-data-dir={tmp_path}", "--dump-dom"),
            f"file://{run.root / 'report.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    # Plotly draws each of the five charts into SVG elements of this class.
    assert result.stdout.count('class="main-svg"') >= 5
    assert "http://" not in (run.root / "report.md").read_text()
