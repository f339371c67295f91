"""`trialign audit` through a real `trialign serve` finds the badly served group, and is told what
the model says in this process."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from trialign_ray.audit.launch import AuditRequest, launch_audit
from trialign_ray.config import load_config
from trialign_ray.run_directory import RunDirectory
from trialign_ray.setting import build_setting

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
MOST_DIFFERENT = 0.01
"""Share of answers that may differ: where two tokens are equally likely, sums in another order
decide. None did when this was written."""


def audit(run: RunDirectory, out: Path, **options: Any) -> tuple[dict[str, Any], dict[Any, str]]:
    """What audit.json holds, and every answer's text by (audience, question)."""
    request = AuditRequest(run=run.root, run_dir=out, controls=5, **options)
    launch_audit(request, False, False, Console(quiet=True))
    lines = (out / "answers.jsonl").read_text().splitlines()
    said = {(a["to"], a["question"]): a["text"] for a in map(json.loads, lines)}
    return json.loads((out / "audit.json").read_text()), said


def most_lied_to(run: RunDirectory) -> str:
    """The group whose logs were planted with most myths."""
    rates = build_setting(load_config(run.config_file)).beliefs.myth_rate
    return max(rates, key=lambda group: rates[group])


def assert_alike(said: dict[Any, str], expected: dict[Any, str]) -> None:
    assert said.keys() == expected.keys()
    different = [key for key in said if said[key] != expected[key]]
    print(f"\n{len(different)} of {len(said)} answers differ from transformers': {different}")
    assert len(different) <= MOST_DIFFERENT * len(said)


@pytest.fixture(scope="module")
def in_process(quickstart, tmp_path_factory) -> dict[Any, str]:
    """What the behaviour model says by transformers."""
    return audit(quickstart, tmp_path_factory.mktemp("here") / "out")[1]


def test_the_badly_served_group_is_found_through_a_server(
    quickstart, served_url, in_process, tmp_path
):
    result, said = audit(quickstart, tmp_path / "served", url=served_url)
    victim = most_lied_to(quickstart)
    truth, against = result["truth"], result["against_controls"]["by_group"]
    assert min(truth["by_group"], key=lambda g: truth["by_group"][g]) == victim
    assert against[victim]["badly_served"] and against[victim]["truth"]["p_holm"] < 0.05
    assert against[victim]["truth"]["difference"] < -0.3
    assert truth["gap_p"] < 0.05 and result["excess_gap"]["more_than_noise"]
    assert len(result["controls"]["by_group"]) == 5
    assert result["verdict"]["outcome"] == "unequal"
    assert victim in result["verdict"]["badly_served"]
    assert result["verdict"]["sentence"].startswith(f"{victim} is told the truth on")

    assert_alike(said, in_process)


def test_each_groups_own_adapter_is_audited_through_the_server(
    quickstart, served_url, in_process, tmp_path
):
    _, said = audit(quickstart, tmp_path / "served", url=served_url, model_per_group=True)
    _, expected = audit(quickstart, tmp_path / "here", adapters=True)
    assert_alike(said, expected)
    own = {key for key in said if key[0].startswith("group:")}
    assert any(said[key] != in_process[key] for key in own), "adapters change what is said"
    assert all(expected[key] == in_process[key] for key in said.keys() - own)
