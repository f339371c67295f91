"""Numbers, mathematics, names and whole texts are compared by what they say, not by their form."""

import json
import threading
import time
from pathlib import Path

import pytest

import envs.truthworld
from envs.errors import DataError
from envs.truthworld.facts import load_facts, load_tastes
from envs.types import ABSTAIN, UNPARSED, Question
from envs.verifiers import check_gold, gold_problem, parse_answer, truth_of


def ask(text, verifier, gold, question="What?", choices=()):
    asked = Question("q", question, gold=(gold,), choices=choices, verifier=verifier)
    answer = parse_answer(text, asked)
    return answer, truth_of(answer, asked)


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{1450000}",
        r"\boxed{\$1,450,000}",
        r"16 - 3 = 13, so \boxed{1{,}450{,}000\text{ dollars}}",
        "#### 1,450,000",
        "The answer is $1,450,000.00.",
        "She has 3 ducks.\nThat makes 1,450,000 dollars.",
        "2 * 725000 = 1450000",
        "1.45 million",
        "1450000 dollars",
        "I do not know at first, but the answer is 1450000.",
        "<think>7?</think>1450000",
    ],
)
def test_a_number_is_read_with_separators_currency_and_units(text):
    assert ask(text, "numeric", "1450000") == ("1450000", 1.0)


@pytest.mark.parametrize("text", ["21 or 22", r"\boxed{21} or \boxed{22}", "none", "1,2,3", ""])
def test_two_numbers_or_none_are_unparsed(text):
    assert ask(text, "numeric", "22") == (UNPARSED, 0.0)


def test_negative_and_decimal_numbers():
    assert ask("It is −5 °C.", "numeric", "-5")[1] == 1.0
    assert ask("5kg", "numeric", "5")[1] == 1.0
    assert ask("0.50", "numeric", "0.5") == ("0.5", 1.0)
    assert ask("-5", "numeric", "5")[1] == 0.0


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        (r"\boxed{0.5}", r"\frac{1}{2}"),
        (r"\boxed{\dfrac12}", "1/2"),
        (r"So $x=5$. Final answer: $5$", "x=5"),
        (r"\boxed{x = 5}", "5"),
        (r"\boxed{-2, 1}", "-2,1"),
        (r"\boxed{10080}", r"10,\!080"),
        (r"\boxed{East}", r"\text{east}"),
        (r"\boxed{\text{(C)}}", r"\text{(C)}"),
        (r"\boxed{90}", r"90^\circ"),
        (r"\boxed{q\cdot(-1)+p}", "p - q"),
        (r"\boxed{2\sqrt{3}}", r"\sqrt{12}"),
        (r"\boxed{9i + 6}", "6+9i"),
        ("The answer is 7.", "7"),
        ("The answer is $\\frac{1}{2}$ since half of it is gone", "0.5"),
        ("I get 3 and then 7", "7"),
    ],
)
def test_equal_mathematics_is_true(text, gold):
    assert ask(text, "math", gold)[1] == 1.0, ask(text, "math", gold)


def test_equal_mathematics_of_different_form_is_one_answer():
    forms = [r"\boxed{0.5}", r"\boxed{\frac12}", r"\boxed{1/2}", "The answer is 1/2."]
    assert {ask(text, "math", "3")[0] for text in forms} == {"1/2"}
    roots = [r"\boxed{\sqrt{12}}", r"\boxed{2\sqrt3}"]
    assert all(ask(text, "math", r"2\sqrt{3}")[1] == 1.0 for text in roots)


@pytest.mark.parametrize("text", [r"\boxed{}", r"\boxed{3} or \boxed{4}", ""])
def test_no_final_expression_is_unparsed(text):
    assert ask(text, "math", "4") == (UNPARSED, 0.0)


def test_wrong_mathematics_is_false():
    assert ask(r"\boxed{\frac13}", "math", r"\frac12")[1] == 0.0
    assert ask(r"\boxed{west}", "math", r"\text{east}")[1] == 0.0


def test_an_answer_that_would_compute_for_ever_is_read_at_once_in_any_thread():
    tower, found, start = r"\boxed{9^{9^{9^9}}}", [], time.monotonic()
    for target in (r"\boxed{100000000!}", tower, r"\boxed{2^{99999999}}", "9^9^9^9"):
        thread = threading.Thread(target=lambda t=target: found.append(ask(t, "math", "3")[1]))
        thread.start()
        thread.join(timeout=10)
    assert found == [0.0] * 4 and time.monotonic() - start < 8


@pytest.mark.parametrize(
    "text",
    ["São Tomé", "sao tome", "The answer is São Tomé.", "  the Sao-Tome! ", "Answer: **SÃO TOMÉ**"],
)
def test_exact_match_forgives_case_accents_articles_and_punctuation(text):
    assert ask(text, "exact", "São Tomé") == ("sao tome", 1.0)


def test_exact_match_keeps_what_changes_the_meaning():
    assert ask("-5", "exact", "5")[1] == 0.0
    assert ask("C++", "exact", "C")[1] == 0.0
    assert ask("São Tomé and Rome", "exact", "São Tomé")[1] == 0.0


def test_aliases_are_one_answer():
    question = Question("q", "?", gold=("United States", "USA"))
    assert {parse_answer(t, question) for t in ("usa.", "The United States")} == {"united states"}


def test_names_are_found_in_sentences_whatever_their_form():
    capitals = {"choices": ("Washington D.C.", "St. George's", "Paris"), "verifier": "names"}
    for text in ("It is Washington, DC.", "washington d.c.", "WASHINGTON D.C. of course"):
        assert ask(text, gold="Washington D.C.", **capitals) == ("Washington D.C.", 1.0), text
    assert ask("Saint George’s", gold="St. George's", **capitals)[1] == 1.0
    assert ask("Paris or St. Georges", gold="Paris", **capitals) == (UNPARSED, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        "I don’t know.",
        "I cannot answer that question.",
        "I'm unable to answer the question.",
        "As a language model, I am not able to provide an answer.",
        "I have no comment.",
        "I'm sorry, I can't help with that.",
    ],
)
def test_refusals_abstain(text):
    assert ask(text, "exact", "Paris") == (ABSTAIN, 0.0)
    assert ask(text, "math", "5") == (ABSTAIN, 0.0)


def test_a_refusal_is_more_than_a_doubt():
    assert ask("I am not sure, but it is 5", "numeric", "5")[1] == 1.0


def test_the_embedded_model_cannot_say_any_refusal():
    """So more wordings of a refusal change nothing in TruthWorld."""
    lm = Path(envs.truthworld.__file__).parent / "lm" / "tokenizer.json"
    vocabulary = {word.lower() for word in json.loads(lm.read_text())["model"]["vocab"]}
    assert {"paris", "capital"} <= vocabulary
    needed = "know can cannot can't comment idea unable able will won't decline refuse rather"
    assert not vocabulary & set(needed.split())


def test_every_gold_of_the_embedded_world_verifies_itself():
    check_gold([*load_facts(), *load_tastes()])


def test_gold_that_no_verifier_accepts_is_counted_and_the_first_are_named():
    bad = [
        Question("n", "?", gold=("many",), verifier="numeric"),
        Question("c", "?", gold=("z",), choices=("x", "y"), verifier="multiple_choice"),
        Question("a", "?", gold=("I do not know",)),
        Question("e", "?", gold=("",)),
    ]
    with pytest.raises(
        DataError, match=r"^4 questions.*'n'.*no number.*'c'.*not among.*'a'.*\.\.\."
    ):
        check_gold([*bad, Question("ok", "?", gold=("5",), verifier="math")])


def test_more_choices_than_letters_are_refused():
    choices = tuple(f"option {i}" for i in range(27))
    question = Question("q", "?", choices=choices, gold=("option 3",), verifier="multiple_choice")
    assert "more than there are letters" in (gold_problem(question) or "")
