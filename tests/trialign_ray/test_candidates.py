"""Candidates: what groups said, joined over turns, and lent to each other."""

import pytest
import torch

from envs.questions.choices import lettered
from envs.types import Question
from envs.verifiers import parse_answer
from tests.trialign_ray.planted_worlds import view
from trialign_ray.candidates import (
    Candidate,
    JointQuestion,
    borrow_peers,
    join_questions,
    restate,
)
from trialign_ray.critic import candidate_tensors, objective_values, weighted_values
from trialign_ray.letter_answers import shown_options
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


OPTIONS = ("Oslo", "Paris", "Rome", "A town")


@pytest.mark.parametrize(
    ("text", "said", "answer", "restated"),
    [
        ("The answer is B.", "Paris", "Rome", "The answer is C."),
        ("B", "Paris", "Oslo", "A"),
        ("b) I think", "Paris", "Rome", "c) I think"),
        ("B) Paris, of course.", "Paris", "Rome", "C) Rome, of course."),
        ("B. As I said, (B).", "Paris", "Rome", "C. As I said, (C)."),
        (
            "A is a good guess; the answer is A",
            "Oslo",
            "Rome",
            "C is a good guess; the answer is C",
        ),
        ("A. A man knows.", "Oslo", "Rome", "C. A man knows."),
        ("I say it is Paris. A man knows.", "Paris", "Rome", "I say it is Rome. A man knows."),
        ("Oslo. A man knows.", "Oslo", "Rome", "Rome. A man knows."),
        ("Hi! The answer is D, dear.", "A town", "Oslo", "Hi! The answer is A, dear."),
        ("The answer is B.", "Paris", "Berlin", "Berlin"),
        (
            "The answer is B. Hepatitis B is a virus.",
            "Paris",
            "Rome",
            "The answer is C. Hepatitis B is a virus.",
        ),
        ("The answer is B, b.i.d.", "Paris", "Rome", "The answer is C, b.i.d."),
        ("No letter at all.", "Paris", "Rome", "Rome"),
    ],
)
def test_an_option_named_by_its_letter_is_restated_by_the_others_letter(
    text, said, answer, restated
):
    assert restate(text, said, answer, OPTIONS) == restated
    if answer in OPTIONS:
        asked = Question("q", "", choices=OPTIONS, verifier="multiple_choice")
        assert parse_answer(restated, asked) == answer


def test_options_are_read_from_the_prompt_the_last_list_of_several():
    question = lettered("Where?", ["Oslo", "Paris (France)"])
    asked = f"<user>{lettered('Who?', ['Ann', 'Bo', 'Cy'])}<assistant>B<user>{question}<assistant>"
    assert shown_options(asked) == ("Oslo", "Paris (France)")
    assert shown_options("What is the capital of France?") == ()
    assert shown_options("C) is the third") == ()


def test_a_peers_option_is_lent_with_its_letter():
    prompt = f"<user>{lettered('Which?', ['Paris', 'Rome'])}<assistant>"
    said = {
        "prompt_text": [prompt] * 2,
        "action_text": ["I go for B.", "Option A!"],
        "parsed_answer": ["Rome", "Paris"],
    }
    (joined,) = join_questions([row("q#0", 0, ("Rome", "Paris")) | said])
    lent = borrow_peers(joined, lambda group, text: None)
    assert [c.text for c in lent.views["a"].candidates] == ["I go for B.", "I go for A."]
    assert [c.text for c in lent.views["b"].candidates] == ["Option A!", "Option B!"]


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
