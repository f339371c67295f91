"""Candidates: what groups said, joined over turns, and lent to each other."""

import pytest
import torch

from tests.trialign_ray.planted_worlds import view
from trialign_ray.candidates import (
    Candidate,
    JointQuestion,
    borrow_peers,
    join_questions,
    restate,
)
from trialign_ray.critic import candidate_tensors, objective_values, weighted_values
from trialign_ray.truth_heads import TruthEstimate

GROUPS = ("good", "bad", "worse")


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
    half = torch.full((2, 1), 0.5)
    believed = TruthEstimate(half, torch.zeros_like(half), temperature=1.0, num_labels=1)
    tensors = candidate_tensors([truth, taste], GROUPS, believed, 0.0)
    value = objective_values(tensors)
    # E over both questions of the truth objective is the truth of the one that has it.
    assert value[0].sum((-1, -2)).tolist() == pytest.approx([2.0] * 3)
    assert tensors.is_truth_X.tolist() == [True, False]
    assert weighted_values(tensors, 1.0, 1.0)[0, 1, 0] == pytest.approx(0.5)  # no truth, P = 1
