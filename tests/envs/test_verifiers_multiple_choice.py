"""Lettered options are read by one parser, whatever the wording; hedging is no answer."""

import json
import re

import pytest

from envs.types import ABSTAIN, UNPARSED, Question
from envs.verifiers import parse_answer
from tests.envs.real_data import DATA, needs_data

CITIES = ("London", "Paris", "Rome", "Mexico City")


def read(text, choices=CITIES):
    question = Question(
        "q", "Which?", choices=choices, gold=choices[:1], verifier="multiple_choice"
    )
    return parse_answer(text, question)


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "b",
        "(b)",
        "b) paris",
        "**B**",
        "**B) Paris**",
        "B) Paris",
        "B. Paris",
        "B: Paris",
        "B - Paris",
        "B Paris",
        "B\n\nParis is the capital.",
        "The answer is (B).",
        "the answer is b.",
        "Answer: B",
        "**Answer:** B) Paris",
        "The correct answer is option B.",
        "I would choose B because it is the capital.",
        r"So $\boxed{B}$.",
        r"\boxed{\text{B}}",
        "B is correct.",
        "Option B",
        "Paris",
        "It is Paris.",
        "paris!",
        "<think>A) London? The answer is A.</think>B) Paris",
        "I thought of A) and C).\nThe answer is B.",
        "A) London is in England, C) Rome in Italy. The answer is B) Paris",
        "I do not know much about it, but the answer is B.",
        "B) Paris\n\nIt is the capital; V or W would not be.",
    ],
)
def test_every_common_wording_of_one_option_is_read_as_it(text):
    assert read(text) == "Paris"


@pytest.mark.parametrize(
    "text",
    [
        "B or C",
        "B) or C)",
        "B) Paris, or C) Rome",
        "The answer is B or C.",
        "The answer is B. No, the answer is C.",
        "Either (B) or (C).",
        "Paris or Rome",
        "B) Rome",
        "E",
        "(E)",
        "The answer is E.",
        "Z) Paris",
        "",
        "It is lovely.",
        "Parisian",
        "<think>It must be B",
    ],
)
def test_two_options_or_a_letter_beyond_them_is_unparsed(text):
    assert read(text) == UNPARSED


def test_an_article_is_no_letter():
    men = ("A woman walks", "A man walks", "I walk", "Nobody walks")
    assert read("A man walks", men) == "A man walks"
    assert read("The answer is A man walks.", men) == "A man walks"
    assert read("A good question. It is Rome.") == "Rome"
    assert read("I believe that it is Rome.") == "Rome"
    assert read("The answer is A because of the river.") == "London"


def test_the_longer_wording_wins_and_numbers_are_whole():
    assert read("Mexico City", ("Mexico", "Mexico City")) == "Mexico City"
    assert read("It is 3.5", ("3", "3.5", "35")) == "3.5"
    assert read("It is 35", ("3", "3.5", "35")) == "35"


def test_an_option_that_declines_is_an_option():
    choices = ("I have no comment", "Cannot be determined", "Paris")
    assert read("I have no comment.", choices) == "I have no comment"
    assert read("A) I have no comment", choices) == "I have no comment"
    assert read("I have no comment.") == ABSTAIN
    assert read("Can't answer", ("Can't answer", "The Jewish one")) == "Can't answer"


def test_an_option_may_name_other_options():
    assert read("D) B and C", ("London", "Paris", "Rome", "B and C")) == "B and C"


@needs_data
def test_ninety_nine_real_answers_of_a_persona_are_read_as_their_labels_say():
    """68 refuse. Of 31 labelled with a letter we read 28 the same; the other three name two or no
    option ("the answer is (A) or (B)") and were labelled by guess. None is read as another."""
    file = DATA / "persona_bias" / "sample_output_labeled.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    refused = same = 0
    for row in rows:
        options = row["question"].partition("Options:")[2].strip().split("\n")
        choices = tuple(re.sub(r"^\([A-Z]\)\s*", "", option) for option in options)
        answer = read(row["predicted_explanations"][0], choices)
        if not row["predicted_answer"]:
            refused += answer == ABSTAIN
        elif answer in choices:
            assert answer == choices["ABCD".index(row["predicted_answer"])]
            same += 1
    assert (len(rows), refused, same) == (99, 68, 28)
