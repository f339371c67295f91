"""The critic's report: every head's worth on questions whose gold it never saw."""

import json
import math

import pytest

from envs.truthworld.corruption import Corruption
from envs.types import Question
from envs.verifiers import truth_of
from trialign_ray.actors.critic_learner import CriticLearner, CriticSpec
from trialign_ray.candidates import join_questions, texts_to_score
from trialign_ray.config import load_config
from trialign_ray.critic_report import score_beliefs, truth_head_report
from trialign_ray.dataset import write_dataset
from trialign_ray.reference_scores import write_scores
from trialign_ray.run_directory import RunDirectory
from trialign_ray.setting import build_setting

FACTS = {i: Question(i, "?", gold=("yes",)) for i in ("q1", "q2", "q3")}


def test_scores_are_those_worked_by_hand():
    """q1: yes .9, no .1. q2: no .8, and yes was never said, so "none of these" has .2 and is true.

    brier: (.1^2 + .1^2 + .8^2) / 3 = .22. ece: bins of .1, .8 and .9 hold one pair each, with
    |.1 - 0|, |.8 - 0|, |.9 - 1|, mean 1/3. log loss: -(ln .9 + ln .2) / 2.
    """
    found = score_beliefs({"q1": {"yes": 0.9, "no": 0.1}, "q2": {"no": 0.8}}, _some("q1", "q2"))
    assert found["accuracy"] == 0.5
    assert found["brier"] == pytest.approx(0.22)
    assert found["ece"] == pytest.approx(1 / 3)
    assert found["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.2)) / 2)


def test_what_a_head_does_not_know_is_not_counted_as_wrong():
    beliefs = {"q1": {"yes": 1.0}, "q2": {"no": None, "yes": None}}
    assert score_beliefs(beliefs, _some("q1", "q2"))["accuracy"] == 1.0
    nothing = score_beliefs({"q2": {"no": None}}, _some("q2"))
    assert nothing == {"accuracy": None, "brier": None, "ece": None, "log_loss": None}


def test_a_question_that_nobody_answered_is_a_miss_and_no_surprise():
    found = score_beliefs({"q3": {}}, _some("q3"))
    assert found["accuracy"] == 0.0 and found["log_loss"] == 0.0 and found["brier"] is None


def _some(*ids):
    return {i: FACTS[i] for i in ids}


def told_rows(config, setting):
    """A log in which every group says, once, what the corrupted world tells it."""
    groups = [g.name for g in setting.groups]
    rows = []
    for q in setting.log_questions(config.collect.label_fraction, config.seed):
        said = [setting.beliefs.told[g, q.id] for g in groups]
        rows.append(
            {
                "episode_id": f"{q.id}#0",
                "turn": 0,
                "question_id": q.id,
                "kind": q.kind,
                "split": "train",
                "source": q.source,
                "gold_visible": q.gold_visible,
                "group_ids": groups,
                "present": [True] * len(groups),
                "prompt_text": [q.text] * len(groups),
                "action_text": [f"It is {z}." for z in said],
                "action_token_ids": [[1]] * len(groups),
                "behaviour_logprob": [-1.0] * len(groups),
                "parsed_answer": said,
                "r_truth": [truth_of(z, q) if q.gold_visible else None for z in said],
                "r_pers": [1.0] * len(groups),
                "terminated": True,
                "truncated": [False] * len(groups),
                "visible_peers": [[]] * len(groups),
                "behaviour_model_id": "planted",
            }
        )
    return rows


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A critic fitted on a log with false consensus; the run's directory, setting and config."""
    run = RunDirectory(tmp_path_factory.mktemp("critic"))
    config = load_config(None, ["critic.steps=150"])
    corruption = Corruption(systematic_myth=0.3, false_consensus=0.3, sycophancy=0.3)
    world = config.world.model_copy(update={"corruption": corruption})
    config = config.model_copy(update={"world": world})
    setting = build_setting(config)
    rows = told_rows(config, setting)
    digest = write_dataset(rows, run.log_file)
    scores = [
        {"question_id": q.id, "group": g, "text": t, "logprob": -1.0, "personalization": 1.0}
        for q in join_questions(rows)
        for g in q.views
        for t in texts_to_score(q, g)
    ]
    write_scores(scores, run.scores_file, digest)
    weights = {g.name: 0.25 for g in setting.groups}
    folders = (str(run.root / "critic"), str(run.root / "targets"))
    CriticLearner(
        CriticSpec(config, weights, str(run.log_file), str(run.scores_file), *folders)
    ).fit()
    return run, setting, config


def test_the_report_has_every_head_and_the_configured_one_on_top(fitted):
    found = truth_head_report(*fitted)
    assert set(found) == {
        "num_hidden",
        "accuracy",
        "vote_accuracy",
        "coverage",
        "brier",
        "ece",
        "heads",
    }
    assert set(found["heads"]) == {"joint", "dawid_skene", "majority", "labels"}
    joint = found["heads"]["joint"]
    assert all(found[key] == joint[key] for key in ("accuracy", "brier", "ece"))
    assert set(found["heads"]["labels"].values()) == {None}
    # one turn, one episode: the two ways to count a vote differ only where answers tie
    assert found["heads"]["majority"]["accuracy"] == pytest.approx(found["vote_accuracy"], abs=0.03)


def test_under_false_consensus_the_joint_head_clears_the_bar_of_the_vote(fitted):
    found = truth_head_report(*fitted)
    assert found["vote_accuracy"] < 0.8 and found["coverage"] > 0.9
    assert found["accuracy"] > found["vote_accuracy"] + 0.1
    assert found["accuracy"] <= found["coverage"]


def test_what_is_not_known_is_null_in_the_file(fitted):
    run, setting, config = fitted
    beliefs = json.loads((run.root / "critic" / "truth_heads.json").read_text())
    asked = setting.log_questions(config.collect.label_fraction, config.seed)
    for q in asked:
        if q.has_truth:
            known = [p is not None for p in beliefs["labels"][q.id].values()]
            assert set(known) == {q.gold_visible}
