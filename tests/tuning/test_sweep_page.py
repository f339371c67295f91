"""What a person sees of a sweep: tables and page."""

import json
import re
from dataclasses import replace

from rich.console import Console

from tests.tuning.planted_sweep import failed_record, planted_summary
from tuning.prescreen import Prescreened
from tuning.sweep_page import sweep_page
from tuning.sweep_summary import write_sweep
from tuning.sweep_tables import show_sweep


def charts_of(html: str) -> dict:
    found = re.findall(r'"(\w+)": JSON\.parse\((".*?")\),', html)
    return {name: json.loads(json.loads(spec)) for name, spec in found}


def test_the_page_loads_nothing_from_outside_and_shows_every_trial(tmp_path):
    summary = planted_summary(tmp_path)
    write_sweep(summary)
    html = summary.page.read_text(encoding="utf-8")
    without_scripts = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert "http:" not in without_scripts and "https:" not in without_scripts
    assert "<script src" not in html and "<link" not in html and "default-src 'none'" in html
    assert all(record.trial_id in without_scripts for record in summary.records)
    charts = charts_of(html)
    assert set(charts) == {"tradeoff", "parallel", "volume"}
    dots = [t for t in charts["tradeoff"]["data"] if "coloraxis" in t.get("marker", {})]
    assert sum(len(t["x"]) for t in dots) == 7
    names = {t.get("name") for t in charts["tradeoff"]["data"]}
    assert {"nothing beats these", "behaviour model", "best per preference"} <= names
    lines = [t for t in charts["parallel"]["data"] if t["mode"] == "lines"]
    assert len(lines) == 7 and len(lines[0]["y"]) == len(summary.space.dimensions) + 3
    assert charts["volume"]["data"][0]["y"][-1] == summary.volume[-1][1]


def test_what_a_trial_did_not_read_has_a_place_of_its_own(tmp_path):
    charts = charts_of(sweep_page(planted_summary(tmp_path)))
    labels = {a["text"] for a in charts["parallel"]["layout"]["annotations"]}
    assert {"not read", "0", "log_nash", "lambda"} <= labels


def test_errors_of_trials_are_shown_as_text(tmp_path):
    html = sweep_page(planted_summary(tmp_path))
    assert "group amber &lt;did&gt; not answer" in html and "<did>" not in html
    assert "1 of 8 trials failed" in html


def test_a_sweep_of_failures_alone_still_has_its_page_and_tables(tmp_path):
    whole = planted_summary(tmp_path)
    nothing = replace(
        whole,
        records=(failed_record(tmp_path),),
        choices=tuple(replace(c, record=None, reason="no trial", file=None) for c in whole.choices),
        prescreened=Prescreened((), (), 1.0),
    )
    assert charts_of(sweep_page(nothing)) == {} and "prescreened 0 points" in sweep_page(nothing)
    console = Console(width=100)
    with console.capture() as captured:
        show_sweep(nothing, console)
    assert "failed: broken: WorkerError" in captured.get()
    assert [r.trial_id for r in nothing.failed] == ["broken"]


def test_one_trial_is_enough_for_every_chart(tmp_path):
    whole = planted_summary(tmp_path)
    assert set(charts_of(sweep_page(replace(whole, records=whole.records[:1])))) == {
        "tradeoff",
        "parallel",
        "volume",
    }


def test_the_terminal_shows_the_choice_with_validation_and_test(tmp_path):
    summary = planted_summary(tmp_path)
    console = Console(width=120)
    with console.capture() as captured:
        show_sweep(summary, console)
    text = captured.get()
    row = next(line for line in text.splitlines() if line.startswith("│ all_correct"))
    assert re.findall(r"\d\.\d{3}", row) == ["0.800", "0.850", "0.900", "0.770", "0.820", "0.870"]
    assert "Pareto set: 5 trials" in text and "hypervolume" in text and "overhead" in text
    assert text.splitlines()[-1] == f"page: {summary.page}"
