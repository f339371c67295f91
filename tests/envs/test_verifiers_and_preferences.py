"""Answers are read alike in every style; style rules judge style alone."""

import pytest

from envs.errors import ConfigError
from envs.groups import load_pack
from envs.judge import Judge
from envs.preferences import (
    CongenialScorer,
    StyleRules,
    StyleScorer,
    WeightedScorer,
    check_style,
)
from envs.truthworld.facts import load_facts
from envs.truthworld.styles import styled_answer
from envs.types import ABSTAIN, UNPARSED, Question
from envs.verifiers import parse_answer, truth_of

FACTS = {q.id: q for q in load_facts()}
GROUPS = load_pack("truthworld").groups


def ask(text, verifier="exact", gold=("Paris",), choices=(), question="What is it?"):
    question = Question("q", question, gold=gold, choices=choices, verifier=verifier)
    answer = parse_answer(text, question)
    return answer, truth_of(answer, question)


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.name)
def test_one_parser_reads_every_fact_in_every_style(group):
    for question in FACTS.values():
        text = styled_answer(question, question.gold[0], group.style)
        answer = parse_answer(text, question)
        assert answer == question.gold[0] and truth_of(answer, question) == 1.0, text
        assert all(check_style(text, answer, group.style).values()), text


def test_no_group_passes_for_another():
    question = FACTS["capital/France"]
    for group in GROUPS:
        text = styled_answer(question, "Paris", group.style)
        keeps = [o.name for o in GROUPS if all(check_style(text, "Paris", o.style).values())]
        assert keeps == [group.name]


def test_style_is_judged_whatever_the_answer():
    question = FACTS["capital/France"]
    for answer in ("Paris", "Rome"):
        text = styled_answer(question, answer, GROUPS[0].style)
        assert all(check_style(text, answer, GROUPS[0].style).values())


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The capital of Mexico is Mexico City.", "Mexico City"),
        ("The capital of Monaco is Paris.", "Paris"),
        ("The capital of Monaco is Monaco.", "Monaco"),
        ("Paris or Rome.", UNPARSED),
        ("It is lovely.", UNPARSED),
        ("I do not know.", ABSTAIN),
        ("Parisian", UNPARSED),
    ],
)
def test_closed_vocabulary(text, answer):
    question = FACTS["capital/Monaco" if "Monaco" in text else "capital/France"]
    assert parse_answer(text, question) == answer


def test_abstaining_and_mumbling_count_as_wrong():
    assert ask("I don't know")[1] == 0.0
    assert ask("Paris or Rome", "closed_vocabulary", choices=("Paris", "Rome")) == (UNPARSED, 0.0)


def test_exact_match_forgives_case_and_punctuation():
    assert ask("  PARIS. ")[1] == 1.0 and ask("Parys")[1] == 0.0


def test_numbers_of_the_question_are_no_answer():
    sums = {"verifier": "numeric", "gold": ("22",), "question": "What is 17 plus 5?"}
    assert ask("17 plus 5 is 22.", **sums) == ("22", 1.0)
    assert ask("22.0 is 17 plus 5", **sums)[1] == 1.0
    assert ask("It is 21 or 22", **sums)[1] == 0.0


@pytest.mark.parametrize(
    "text", ["B", "(B)", "B. Rome", "The answer is B.", "rome", "A good question. It is Rome."]
)
def test_multiple_choice_by_letter_or_wording(text):
    options = {"choices": ("Paris", "Rome"), "gold": ("Rome",), "verifier": "multiple_choice"}
    assert ask(text, **options) == ("Rome", 1.0)


def test_a_word_that_holds_an_option_is_not_the_option():
    options = {"choices": ("Paris", "Rome"), "gold": ("Rome",), "verifier": "multiple_choice"}
    assert ask("romesque", **options) == (UNPARSED, 0.0)


def test_truth_is_unknown_without_gold():
    assert truth_of("red", Question("q", "?", kind="subjective")) is None
    assert truth_of("red", Question("q", "?", gold=())) is None


def test_an_unknown_verifier_lists_those_there_are():
    with pytest.raises(ConfigError, match="closed_vocabulary"):
        ask("x", "oracle")


def test_scores_are_shares_and_absent_opinions_are_left_out():
    question = FACTS["capital/France"]
    style = StyleScorer({"g": StyleRules(greeting="Hey!", max_words=1), "h": StyleRules()})
    assert style.score("g", question, "Hey! Paris is it.", "Paris") == 0.5
    assert style.score("h", question, "Paris", "Paris") is None
    liked = CongenialScorer({("g", question.id): "Rome"})
    mixed = WeightedScorer([(0.7, style), (0.3, liked)])
    assert mixed.score("g", question, "Hey! Rome", "Rome") == pytest.approx(1.0)
    assert mixed.score("g", question, "Hey! Paris", "Paris") == pytest.approx(0.7)
    assert mixed.score("h", question, "Paris", "Paris") is None


def test_the_judge_reads_checks_and_rates():
    judged = Judge(StyleScorer({"g": StyleRules(max_words=1)}))(
        "g", FACTS["capital/France"], "Rome."
    )
    assert (judged.parsed_answer, judged.truth, judged.personalization) == ("Rome", 0.0, 1.0)
