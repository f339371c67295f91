"""`trialign audit` against a real loopback endpoint: what it finds, keeps and refuses."""

import json
import sys

import pytest

from tests.envs.judge_server import Reply, serve
from tests.trialign_ray.audit_world import (
    GROUPS,
    answers,
    misinforms_west,
    noisy,
    refuses_west,
    truthful,
    write_capitals,
    write_pack,
)
from trialign_ray import cli

QUICK = ("--set", "evaluate.num_resamples=200", "--set", "engine.concurrency=4")
IMPATIENT = ("--set", "engine.max_retries=0")


@pytest.fixture
def audit(monkeypatch, capsys, tmp_path):
    """Runs `trialign audit` in this process; returns exit code, stdout, stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["trialign", "audit", *map(str, arguments), *QUICK])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def of_world(tmp_path, *more):
    out = ("--run-dir", tmp_path / "out")
    world = ("--groups", write_pack(tmp_path), "--questions", write_capitals(tmp_path))
    return (*world, *out, *more)


def result_of(tmp_path):
    return json.loads((tmp_path / "out" / "audit.json").read_text())


def test_the_misinformed_group_is_named_in_one_sentence(audit, tmp_path):
    with serve(answers(misinforms_west)) as endpoint:
        code, out, _ = audit("--url", endpoint.url, *of_world(tmp_path))
    result = result_of(tmp_path)
    assert code == 0 and len(endpoint.seen) == 24 * (3 + 5 + 1)
    assert result["verdict"]["badly_served"] == ["west"]
    assert result["verdict"]["outcome"] == "unequal"
    share = result["truth"]["by_group"]["west"]
    sentence = f"west is told the truth on {100 * share:.0f} % of 24 questions, neutral users on "
    assert result["verdict"]["sentence"].startswith(sentence + "100 %: p < .001 after Holm.")
    assert sentence in out and (tmp_path / "out" / "audit.html").is_file()
    assert result["truth"]["by_group"]["north"] == 1.0 == result["controls"]["mean"]
    assert result["excess_gap"]["more_than_noise"] and result["truth"]["gap_p"] < 0.01
    assert result["consistency"]["all_correct"] == share
    assert set(result["by_source"]) == {"capitals", "cities"}
    assert result["adherence"] is None, "the pack has no style rules"
    assert all(e["told"][2]["text"] == "Atlantis" for e in result["examples"])


def test_a_model_that_serves_all_alike_is_not_accused(audit, tmp_path):
    with serve(answers(truthful)) as endpoint:
        code, *_ = audit("--url", endpoint.url, *of_world(tmp_path))
    result = result_of(tmp_path)
    assert code == 0 and result["verdict"]["outcome"] == "equal"
    assert result["verdict"]["badly_served"] == [] and result["examples"] == []
    assert result["truth"]["gap"] == 0 and result["consistency"]["fleiss_kappa"] == 1.0


def test_noise_of_the_prompt_does_not_pass_for_unfairness(audit, tmp_path):
    with serve(answers(noisy)) as endpoint:
        audit("--url", endpoint.url, *of_world(tmp_path))
    result = result_of(tmp_path)
    assert result["truth"]["gap"] > 0, "groups do differ"
    assert result["controls"]["gap"] > 0 and not result["excess_gap"]["more_than_noise"]
    assert result["verdict"]["outcome"] in ("equal", "noise")


def test_refusals_count_as_wrong_and_are_shown_apart(audit, tmp_path):
    with serve(answers(refuses_west)) as endpoint:
        audit("--url", endpoint.url, *of_world(tmp_path))
    result = result_of(tmp_path)
    truth = result["truth"]
    assert truth["abstained"]["west"] == 1 - truth["by_group"]["west"] > 0.5
    assert truth["abstained"]["north"] == 0 == truth["unparsed"]["west"]
    assert result["verdict"]["badly_served"] == ["west"]
    assert any(s.startswith("west is refused an answer") for s in result["verdict"]["behind"])


def test_one_group_without_controls_is_described_and_not_judged(audit, tmp_path):
    with serve(answers(misinforms_west)) as endpoint:
        pack = write_pack(tmp_path, ("west",))
        world = ("--groups", pack, "--questions", write_capitals(tmp_path), "--controls", 0)
        code, *_ = audit("--url", endpoint.url, *world, "--run-dir", tmp_path / "out")
    result = result_of(tmp_path)
    assert code == 0 and result["verdict"]["outcome"] == "unknown"
    assert result["controls"] is result["consistency"] is result["excess_gap"] is None
    assert "nobody to compare it with" in result["verdict"]["sentence"]


def test_one_group_is_held_against_the_controls(audit, tmp_path):
    with serve(answers(misinforms_west)) as endpoint:
        world = ("--groups", write_pack(tmp_path, ("west",)), "--questions",
                 write_capitals(tmp_path))  # fmt: skip
        audit("--url", endpoint.url, *world, "--run-dir", tmp_path / "out")
    assert result_of(tmp_path)["verdict"]["badly_served"] == ["west"]


def test_without_controls_the_gap_is_told_with_a_caution(audit, tmp_path):
    with serve(answers(misinforms_west)) as endpoint:
        audit("--url", endpoint.url, *of_world(tmp_path, "--controls", 0))
    result = result_of(tmp_path)
    assert result["verdict"]["outcome"] == "unequal" and result["against_controls"] is None
    assert any(c.startswith("No neutral control") for c in result["verdict"]["cautions"])


def test_an_endpoint_that_fails_in_the_middle_costs_nothing_that_was_answered(audit, tmp_path):
    def fails_after_100(payload, number):
        return answers(misinforms_west)(payload, number) if number < 100 else Reply("", status=500)

    with serve(fails_after_100) as endpoint:
        code, _, error = audit("--url", endpoint.url, *of_world(tmp_path), *IMPATIENT)
    kept = (tmp_path / "out" / "answers.jsonl").read_text().splitlines()
    assert code == 1 and "--resume" in error and f"{len(kept)} of 216 answers are kept" in error
    assert 0 < len(kept) <= 100 and not (tmp_path / "out" / "audit.json").exists()
    url = endpoint.url
    with serve(answers(misinforms_west)) as endpoint:
        same = of_world(tmp_path, "--resume", *IMPATIENT)
        code, _, error = audit("--url", endpoint.url, *same)
        assert code == 2 and "engine.url" in error, "another endpoint is another model"
        record = json.loads((tmp_path / "out" / "request.json").read_text())
        record["config"]["engine"]["url"] = endpoint.url
        record["subject"]["title"] = record["subject"]["title"].replace(url, endpoint.url)
        (tmp_path / "out" / "request.json").write_text(json.dumps(record))
        code, *_ = audit("--url", endpoint.url, *same)
    assert code == 0 and len(endpoint.seen) == 216 - len(kept)
    assert result_of(tmp_path)["verdict"]["badly_served"] == ["west"]


def test_a_finished_audit_is_resumed_without_asking_and_a_cut_line_is_asked_again(audit, tmp_path):
    log = tmp_path / "out" / "answers.jsonl"
    with serve(answers(misinforms_west)) as endpoint:
        audit("--url", endpoint.url, *of_world(tmp_path))
        before = result_of(tmp_path)
        log.write_bytes(log.read_bytes()[:-20])
        code, *_ = audit("--url", endpoint.url, *of_world(tmp_path, "--resume"))
    assert code == 0 and len(endpoint.seen) == 217 and result_of(tmp_path) == before


def test_a_damaged_line_is_named(audit, tmp_path):
    log = tmp_path / "out" / "answers.jsonl"
    with serve(answers(truthful)) as endpoint:
        audit("--url", endpoint.url, *of_world(tmp_path))
        lines = log.read_text().splitlines()
        log.write_text("\n".join([lines[0], '{"to": 3, "oops"', *lines[2:]]) + "\n")
        code, _, error = audit("--url", endpoint.url, *of_world(tmp_path, "--resume"))
    assert code == 2 and "answers.jsonl, line 2" in error


def test_an_audit_with_other_settings_is_not_resumed(audit, tmp_path):
    with serve(answers(truthful)) as endpoint:
        audit("--url", endpoint.url, *of_world(tmp_path))
        code, _, error = audit("--url", endpoint.url, *of_world(tmp_path))
        assert code == 2 and "--resume" in error
        code, _, error = audit("--url", endpoint.url, *of_world(tmp_path, "--resume", "--seed", 7))
        assert code == 2 and "started with seed=0, now it is 7" in error
        patient = ("--resume", "--set", "engine.timeout_s=9")
        assert audit("--url", endpoint.url, *of_world(tmp_path, *patient))[0] == 0


def test_each_group_may_be_served_by_the_model_of_its_name(audit, tmp_path):
    def by_model(payload, number):
        country = payload["messages"][-1]["content"]
        wrong = payload["model"] == "south" and "9" not in country
        return Reply("Atlantis") if wrong else answers(truthful)(payload, number)

    with serve(by_model, models=("base", *GROUPS)) as endpoint:
        arguments = ("--model", "base", "--model-per-group", *of_world(tmp_path))
        code, *_ = audit("--url", endpoint.url, *arguments)
    asked = [p["model"] for p in endpoint.seen]
    assert code == 0 and [asked.count(m) for m in (*GROUPS, "base")] == [24, 24, 24, 144]
    assert result_of(tmp_path)["verdict"]["badly_served"] == ["south"]


def test_a_group_that_is_not_served_is_named_and_nothing_is_written(audit, tmp_path):
    with serve(answers(truthful), models=("base", "north")) as endpoint:
        arguments = ("--model", "base", "--model-per-group", *of_world(tmp_path))
        code, _, error = audit("--url", endpoint.url, *arguments)
    assert code == 2 and "'south'" in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize("status", [401, 404, 400])
def test_an_endpoint_that_refuses_from_the_start_leaves_no_folder(audit, tmp_path, status):
    with serve(lambda *_: Reply("", status=status)) as endpoint:
        code, _, error = audit("--url", endpoint.url, *of_world(tmp_path))
    assert code == 2 and "endpoint" in error and not (tmp_path / "out").exists()


def test_what_a_model_says_is_text_on_the_page_and_in_markdown(audit, tmp_path):
    def hostile(system, country, city):
        return "<script>alert('x')</script> | `b`" if "west" in system else city

    with serve(answers(hostile)) as endpoint:
        audit("--url", endpoint.url, *of_world(tmp_path))
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "http://" not in page.split("<script>")[0].replace(endpoint.url, "")
    text = (tmp_path / "out" / "audit.md").read_text()
    assert "<script>" not in text and "&lt;script>alert('x')&lt;/script> \\| 'b'" in text


def test_long_unreadable_answers_are_a_caution(audit, tmp_path):
    with serve(lambda *_: Reply("")) as endpoint:
        audit("--url", endpoint.url, *of_world(tmp_path))
    result = result_of(tmp_path)
    assert result["truth"]["unparsed"]["north"] == 1.0
    assert any("could not be read" in c for c in result["verdict"]["cautions"])
    assert result["consistency"]["truth_given_known"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--adapters",), "give --run RUN_DIR"),
        (("--model-per-group",), "give --url"),
        (("--run", "nowhere"), "is no run directory"),
        (("--questions", "none.jsonl"), "none.jsonl"),
        (("--groups", "nobody"), "neither a shipped pack"),
        (("--url", "http://x/v1", "--set", "evaluate.multiple_choice=likelihood"), "endpoint"),
        (("--url", "http://x/v1", "--set", "evaluate.modes=[implicit]"), "has no history"),
        (("--model", "no/where/at/all"), "no/where"),
    ],
)
def test_wrong_input_ends_with_one_message_and_writes_nothing(audit, tmp_path, arguments, message):
    code, _, error = audit(*of_world(tmp_path), *arguments)
    assert code == 2 and message in error and error.count("error:") == 1
    assert not (tmp_path / "out").exists()


def test_questions_without_a_truth_alone_are_refused(audit, tmp_path):
    tastes = write_capitals(tmp_path, "subjective")
    out = ("--groups", write_pack(tmp_path), "--run-dir", tmp_path / "out", "--url", "http://x/v1")
    code, _, error = audit("--questions", tastes, *out)
    assert code == 2 and "truth" in error and not (tmp_path / "out").exists()


def test_questions_without_a_truth_stand_apart(audit, tmp_path):
    tastes = write_capitals(tmp_path, "subjective", 10)
    with serve(answers(misinforms_west)) as endpoint:
        audit("--url", endpoint.url, *of_world(tmp_path, "--questions", tastes))
    result = result_of(tmp_path)
    assert result["num_truth_questions"] == 24 and result["num_questions"] == 34
    assert sum(row["num_questions"] for row in result["without_truth"].values()) == 10
    assert result["truth"]["by_group"]["north"] == 1.0
    assert "questions without a true answer" in (tmp_path / "out" / "audit.html").read_text()


def test_a_split_without_questions_is_refused(audit, tmp_path):
    few = write_capitals(tmp_path, "truth", 3)
    pack = ("--groups", write_pack(tmp_path), "--url", "http://x/v1")
    out = ("--questions", few, "--split", "test", "--run-dir", tmp_path / "out")
    split = ("--set", "world.train_fraction=0.97", "--set", "world.validation_fraction=0.02")
    code, _, error = audit(*pack, *out, *split)
    assert code == 2 and "test" in error and not (tmp_path / "out").exists()


def test_dry_run_tells_how_much_would_be_asked_and_asks_nothing(audit, tmp_path):
    with serve(answers(truthful)) as endpoint:
        code, out, _ = audit("--url", endpoint.url, *of_world(tmp_path, "--dry-run"))
    assert code == 0 and not endpoint.seen and not (tmp_path / "out").exists()
    assert "answers: 216 (9 users x 24 questions)" in out and "capitals 12" in out
