"""What `trialign frontier` leaves behind, and what training makes of its promises."""

import json
import re
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from trialign_ray.comparison.worlds import local_recipe
from trialign_ray.config import load_config
from trialign_ray.evaluate import answer_questions
from trialign_ray.progress import Progress
from trialign_ray.run_variant import Realised, Variant, train_variant
from tuning.frontier import run_frontier
from tuning.frontier_page import frontier_page
from tuning.frontier_tables import show_frontier
from tuning.frontier_training import train_on_ray


def test_a_frontier_leaves_all_points_the_choice_and_a_page(run, summary):
    folder = run / "frontier"
    table = pq.read_table(folder / "frontier.parquet")
    assert table.num_rows == len(summary.points) == 40
    for name in ("worst_truth", "worst_personalization", "inconsistency", "kl", "gap", "wall_s"):
        assert name in table.column_names
    assert {"truth_amber", "personalization_birch", "penalty_weight"} <= set(table.column_names)
    record = json.loads((folder / "frontier.json").read_text())
    assert record["num_settings"] == 40 and record["failed"] == []
    assert [p["index"] for p in record["pareto"]] == list(summary.frontier.pareto)
    for entry in record["pareto"]:
        config = load_config(run / "config.yaml", entry["overrides"])
        assert config.algorithm == "trialign"
        assert entry["worst_truth"] == min(entry["truth"].values())


def test_the_page_loads_nothing_from_outside_and_shows_every_point(summary):
    html = summary.html.read_text(encoding="utf-8")
    without_scripts = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert "http:" not in without_scripts and "https:" not in without_scripts
    assert "<script src" not in html and "<link" not in html and "default-src 'none'" in html
    charts = re.findall(r'"(\w+)": JSON\.parse\((".*?")\),', html)
    found = {name: json.loads(json.loads(spec)) for name, spec in charts}
    assert set(found) == {"tradeoff", "inconsistency", "realised"}
    dots = [t for t in found["tradeoff"]["data"] if "coloraxis" in t.get("marker", {})]
    assert sum(len(t["x"]) for t in dots) == len(summary.points)
    names = {t["name"] for t in found["tradeoff"]["data"]}
    assert {"this run's setting", "the log as it is", "recommended"} <= names


def test_the_terminal_shows_recommendations_that_can_be_pasted(summary):
    console = Console(width=100)
    with console.capture() as captured:
        show_frontier(summary, console)
    lines = captured.get().splitlines()
    for r in summary.frontier.recommended:
        assert any(line.startswith(f"{r.name}: ") for line in lines)
        if r.index is not None:
            pasted = "".join(f" --set {override}" for override in summary.overrides[r.index])
            assert f" {pasted}" in lines  # whole and on one line
    assert str(summary.html) in lines[-1]
    assert len(lines) < 60


def test_a_point_that_was_not_trained_is_shown_with_its_reason(summary):
    (trained,) = summary.trained
    broken = replace(trained, realised=Realised(failure="no result in 5 s"))
    worse = replace(summary, trained=[broken], rank_correlation={})
    assert worse.broken == [broken] and summary.broken == []
    console = Console(width=100)
    with console.capture() as captured:
        show_frontier(worse, console)
    assert "no result in 5 s" in captured.get()
    assert "no result in 5 s" in frontier_page(worse)


def test_a_trained_point_shares_the_log_and_is_asked_on_validation_and_test(run, summary):
    (trained,) = summary.trained
    assert trained.realised.failure == ""
    assert set(trained.realised.truth) == {"validation", "test"}
    assert set(trained.realised.truth["test"]) == {"amber", "birch"}
    folder = run / "frontier" / "trained" / trained.name
    for name in ("dataset", "critic/reference_scores.parquet"):
        link = folder / name
        assert link.is_symlink() and not link.readlink().is_absolute()
        assert link.resolve() == (run / name).resolve()
    assert not (folder / "checkpoints").exists()
    assert (folder / "adapters" / "amber" / "adapter_model.safetensors").is_file()
    config = load_config(folder / "config.yaml")
    chosen = summary.points[trained.index].settings
    assert {k: getattr(config.targets, k) for k in chosen} == chosen


def test_what_the_adapters_were_taught_is_what_was_promised(run, summary):
    (trained,) = summary.trained
    solution = json.loads(
        (run / "frontier" / "trained" / trained.name / "targets" / "solution.json").read_text()
    )
    promised = summary.points[trained.index].promise
    assert solution["inconsistency"] == pytest.approx(promised.inconsistency, abs=2e-3)


def test_training_again_reads_what_is_there(run, summary):
    files = {p: p.stat().st_mtime_ns for p in run.rglob("adapter_model.safetensors")}
    again = run_frontier(run, train=1, settings=40, progress=Progress(run / "frontier"))
    assert again.trained == summary.trained
    assert files == {p: p.stat().st_mtime_ns for p in run.rglob("adapter_model.safetensors")}


def test_a_variant_trained_with_other_settings_is_not_taken_for_this_one(run, summary):
    (trained,) = summary.trained
    folder = run / "frontier" / "trained" / trained.name
    other = Variant(str(run), str(folder), (*trained.overrides, "clone.steps=5"))
    assert "clone.steps" in train_variant(other).failure


@pytest.mark.ray
def test_ray_trains_variants_to_the_same_result(run, summary, ray_local):
    (trained,) = summary.trained
    folder = run / "frontier" / "trained" / trained.name
    done = Variant(str(run), str(folder), trained.overrides)
    broken = Variant(str(run), str(run / "frontier" / "broken"), ("targets.kl_weight=-1",))
    results = dict(train_on_ray([done, broken]))
    assert results[0] == trained.realised
    assert "kl_weight" in results[1].failure


def test_realised_personalization_is_what_the_logs_raters_would_say(run, summary):
    (trained,) = summary.trained
    folder = run / "frontier" / "trained" / trained.name
    recipe = local_recipe(folder, load_config(folder / "config.yaml"))
    try:
        protocol = recipe.protocol("validation")
        answers = answer_questions(protocol, recipe.workers, "aligned", "explicit")
    finally:
        recipe.close()
        recipe.progress.close()
    for group, texts in answers.texts.items():
        liked = [
            recipe.setting.log_judge(group, question, text).personalization
            for question, text in zip(protocol.questions, texts, strict=True)
        ]
        assert len(liked) >= 10 and None not in liked
        mean = sum(v for v in liked if v is not None) / len(liked)
        assert trained.realised.personalization["validation"][group] == pytest.approx(mean)
