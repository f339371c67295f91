"""Audits of models in this process: the shipped facts base, and a run's model and adapters."""

import json

import pytest
from rich.console import Console

from tests.trialign_ray.finished_run import GROUPS, copied, finished_run
from tests.trialign_ray.small_runs import write_questions
from tests.trialign_ray.tiny_models import save_random_qwen2
from trialign_ray.audit.launch import AuditRequest, launch_audit
from trialign_ray.errors import ConfigError, DataError

QUICK = ("evaluate.num_resamples=100",)


@pytest.fixture(autouse=True)
def no_ray_may_start(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("an audit in this process needs no Ray")

    monkeypatch.setattr("ray.init", refuse)


def audited(folder, **options):
    """The result of an audit, and what the terminal shows."""
    console = Console(record=True, width=120)
    options = {"sets": QUICK, "run_dir": folder} | options
    launch_audit(AuditRequest(**options), False, False, console)
    return json.loads((folder / "audit.json").read_text()), console.export_text()


def test_the_facts_base_serves_all_groups_alike(tmp_path):
    questions = str(write_questions(tmp_path / "questions.jsonl"))
    result, shown = audited(tmp_path / "out", questions=(questions,))
    assert result["verdict"]["outcome"] == "equal" and result["truth"]["worst"] > 0.95
    assert result["subject"]["title"] == "TruthWorld's facts base"
    assert len(result["controls"]["by_group"]) == 5 and len(result["truth"]["by_group"]) == 4
    assert result["truth"]["truncated"]["amber"] == 0.0
    assert set(result["adherence"]["by_group"]) == set(result["groups"])
    assert sum(row["num_questions"] for row in result["without_truth"].values()) == 4
    assert "No group is surely served worse than neutral users" in shown


def test_likelihood_answers_without_a_word_being_said(tmp_path):
    path, model = tmp_path / "options.jsonl", save_random_qwen2(tmp_path / "model")
    options = ["Oslo", "Paris", "Lima"]
    rows = [
        {"id": str(i), "text": f"Which is the capital of land {i}?", "choices": options,
         "gold": options[i % 3 : i % 3 + 1], "verifier": "multiple_choice"}
        for i in range(12)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    sets = (*QUICK, "evaluate.multiple_choice=likelihood")
    asked = {"questions": (str(path),), "model": str(model), "controls": 2}
    result, _ = audited(tmp_path / "out", sets=sets, **asked)
    log = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").open()]
    assert {r["option"] for r in log} <= {0, 1, 2} and len(log) == 12 * (4 + 2 + 1)
    assert all(r["text"] in options for r in log), "the option itself, not what was scored"
    assert result["adherence"] is None and result["truth"]["unparsed"]["amber"] == 0.0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory)[0]


def test_a_runs_model_is_audited_on_its_test_questions(run, tmp_path):
    result, _ = audited(tmp_path / "out", run=run.root, controls=2)
    evaluation = json.loads(run.evaluation_file.read_text())
    assert result["truth"]["by_group"] == evaluation["models"]["behaviour"]["truth"]["by_group"]
    assert result["subject"]["title"].endswith("run finished-run")


def test_a_runs_adapters_answer_as_they_did_in_its_evaluation(run, tmp_path):
    result, _ = audited(tmp_path / "out", run=run.root, controls=2, adapters=True)
    aligned = json.loads(run.evaluation_file.read_text())["models"]["aligned"]
    assert result["truth"]["by_group"] == aligned["truth"]["by_group"]
    for group in GROUPS:
        said = result["per_question"]["answer"][f"group:{group}"]
        assert said == aligned["per_question"]["answer"][group]
    assert set(result["subject"]["adapter_sha256"]) == set(GROUPS)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("behaviour.base=/my/model", "--run audits the one that the run has"),
        ("behaviour.model=/my/model", "--model FOLDER"),
        ("behaviour={base: x}", "--run audits the one that the run has"),
        ("engine.url=http://localhost:8000/v1", "give the endpoint as --url"),
        ("engine.kind=server", "give the endpoint as --url"),
        ('engine.kind="server"', "give the endpoint as --url"),
    ],
)
def test_another_model_is_not_silently_left_out_with_a_run(run, tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        audited(tmp_path / "out", run=run.root, sets=(*QUICK, override))
    assert not (tmp_path / "out").exists()


def test_an_audit_is_not_resumed_in_batches_of_another_size(run, tmp_path):
    """They round differently: some answers could be others than those of one sitting."""
    options = {"run": run.root, "controls": 1, "run_dir": tmp_path / "out"}
    audited(tmp_path / "out", **options)
    again = AuditRequest(**options, sets=(*QUICK, "collect.batch_size=3"))
    with pytest.raises(ConfigError, match=r"started with collect\.batch_size=256, now it is 3"):
        launch_audit(again, False, True, Console())
    patient = AuditRequest(**options, sets=(*QUICK, "resources.timeout_s=9"))
    launch_audit(patient, False, True, Console())


def test_a_damaged_adapter_is_refused_before_anything_is_written(run, tmp_path):
    broken = copied(run, tmp_path / "run")
    file = broken.adapter_dir(GROUPS[0]) / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match="sha256"):
        audited(tmp_path / "out", run=broken.root, adapters=True)
    assert not (tmp_path / "out").exists()


def test_other_weights_are_not_asked_to_finish_an_audit(run, tmp_path):
    questions = (str(write_questions(tmp_path / "questions.jsonl")),)
    audited(tmp_path / "out", questions=questions, controls=1)
    record = json.loads((tmp_path / "out" / "request.json").read_text())
    record["subject"]["weights_sha256"] = "0" * 64
    (tmp_path / "out" / "request.json").write_text(json.dumps(record))
    request = AuditRequest(questions=questions, controls=1, run_dir=tmp_path / "out", sets=QUICK)
    with pytest.raises(ConfigError, match="weights_sha256"):
        launch_audit(request, False, True, Console())
