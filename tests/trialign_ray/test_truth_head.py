"""The truth head learns who is reliable about what, and says how sure it is."""

import pytest
import torch

from trialign_ray.candidates import (
    Candidate,
    GroupView,
    JointQuestion,
    borrow_peers,
    join_questions,
    restate,
)
from trialign_ray.config import CriticConfig
from trialign_ray.critic import candidate_tensors, objective_values, weighted_values
from trialign_ray.truth_head import TruthEstimate, fit_truth_head, joint_features, label_indices

GROUPS = ("good", "bad", "worse")


def view(said, truth=None, count=4):
    candidates = (Candidate(f"It is {said}.", said, truth, 1.0, count),)
    return GroupView("prompt", candidates, {said: 1.0}, {said: 1.0}, {}, {})


def questions(num, num_labelled):
    """Group "good" is right; "bad" and "worse" share a myth, so a vote is wrong every time."""
    made = []
    for i in range(num):
        visible = i < num_labelled
        truths = (1.0, 0.0, 0.0) if visible else (None, None, None)
        views = {
            g: view(z, t) for g, z, t in zip(GROUPS, ("yes", "myth", "myth"), truths, strict=True)
        }
        made.append(JointQuestion(f"q{i:03}", "truth", visible, ("myth", "yes"), views))
    return made


def estimate(asked, **options):
    features, mask = joint_features(asked, GROUPS, lambda q, g, text: -1.0)
    labels = label_indices(asked, features.shape[1])
    return fit_truth_head(features, mask, labels, CriticConfig(steps=150, **options), 0)


def test_a_reliable_minority_is_believed_where_a_vote_would_fail():
    believed = estimate(questions(60, 20))
    assert float(believed.mean_XZ[20:, 1].min()) > 0.9
    vote = estimate(questions(60, 0))
    assert vote.num_labels == 0 and float(vote.mean_XZ[0, 1]) == pytest.approx(1 / 3)


def test_estimates_are_probabilities_with_a_spread():
    believed = estimate(questions(60, 20))
    assert float(believed.mean_XZ.sum(-1).max()) <= 1 + 1e-6
    assert float(believed.std_XZ.min()) >= 0
    assert torch.all(believed.pessimistic(2.0) <= believed.mean_XZ)


def test_a_labelled_question_is_scored_without_its_own_label():
    """One question of many has the opposite label; cross-fitting must not learn it by heart."""
    asked = questions(40, 40)
    odd = asked[0]
    flipped = {
        g: view(z, t)
        for g, z, t in zip(GROUPS, ("yes", "myth", "myth"), (0.0, 1.0, 1.0), strict=True)
    }
    asked[0] = JointQuestion(odd.id, "truth", True, odd.answers, flipped)
    assert float(estimate(asked).mean_XZ[0, 1]) > 0.8


def test_no_answer_may_be_true():
    asked = questions(60, 60)
    none = [
        JointQuestion(q.id, "truth", True, q.answers, {g: view("myth", 0.0) for g in GROUPS})
        for q in asked[:30]
    ]
    believed = estimate([*none, *asked[30:]])
    assert float(believed.mean_XZ[:30].sum(-1).mean()) < 0.2


def test_the_same_seed_gives_the_same_estimate():
    first, second = estimate(questions(30, 10)), estimate(questions(30, 10))
    assert torch.equal(first.mean_XZ, second.mean_XZ)


def row(episode, turn, answers):
    return {
        "episode_id": episode,
        "turn": turn,
        "question_id": "q",
        "kind": "truth",
        "gold_visible": True,
        "group_ids": ["a", "b"],
        "present": [True, True],
        "prompt_text": [f"prompt {turn}"] * 2,
        "action_text": [f"It is {z}." for z in answers],
        "parsed_answer": list(answers),
        "r_truth": [float(z == "Paris") for z in answers],
        "r_pers": [1.0, 0.5],
        "truncated": [False, False],
    }


def test_second_thoughts_become_candidates_of_the_first_answer():
    rows = [row("q#0", 0, ("Rome", "Paris")), row("q#0", 1, ("Paris", "Paris"))]
    (joined,) = join_questions(rows)
    a = joined.views["a"]
    assert a.prompt == "prompt 0"
    assert {c.answer: c.count for c in a.candidates} == {"Rome": 1, "Paris": 1}
    assert a.switched_to == {"Paris": 1.0} and a.switched_from == {"Rome": 1.0}
    assert joined.views["b"].switched_to == {} and joined.true_answer == "Paris"


@pytest.mark.parametrize(
    ("text", "said", "answer", "restated"),
    [
        ("The symbol of Vanadium is V.", "V", "Fr", "The symbol of Vanadium is Fr."),
        ("Hello. V is the symbol of Vanadium.", "V", "Fr", "Hello. Fr is the symbol of Vanadium."),
        ("The capital of Monaco is Monaco.", "Monaco", "Paris", "The capital of Monaco is Paris."),
        (
            "Hey! Monaco is the capital of Monaco.",
            "Monaco",
            "A",
            "Hey! A is the capital of Monaco.",
        ),
        ("No idea.", "Rome", "Paris", "Paris"),
    ],
)
def test_an_answer_is_restated_as_a_whole_word_in_its_own_place(text, said, answer, restated):
    assert restate(text, said, answer) == restated


def test_borrowed_answers_are_restated_in_the_groups_own_words():
    rows = [row("q#0", 0, ("Rome", "Paris"))]
    (joined,) = join_questions(rows)
    lent = borrow_peers(joined, lambda group, text: 0.25)
    borrowed = lent.views["a"].candidates[-1]
    assert borrowed == Candidate("It is Paris.", "Paris", 1.0, 0.25, 0)
    tensors = candidate_tensors([lent], ["a", "b"], _flat(lent), 0.0)
    # counts 1 and 0, smoothed by 1/2: 1.5 / 2 and .5 / 2
    assert tensors.reference_GXK[0, 0].tolist() == pytest.approx([0.75, 0.25])


def _flat(question):
    half = torch.full((1, len(question.answers)), 0.5)
    return TruthEstimate(half, torch.zeros_like(half), temperature=1.0, num_labels=1)


def test_a_matter_of_taste_does_not_count_as_a_false_answer():
    truth = JointQuestion("t", "truth", True, ("yes",), {g: view("yes", 1.0) for g in GROUPS})
    taste = JointQuestion("u", "subjective", False, ("red",), {g: view("red") for g in GROUPS})
    believed = estimate([truth, taste])
    tensors = candidate_tensors([truth, taste], GROUPS, believed, 0.0)
    value = objective_values(tensors)
    # E over both questions of the truth objective is the truth of the one that has it.
    assert value[0].sum((-1, -2)).tolist() == pytest.approx([2.0] * 3)
    assert tensors.is_truth_X.tolist() == [True, False]
    assert weighted_values(tensors, 1.0, 1.0)[0, 1, 0] == pytest.approx(1.0)
