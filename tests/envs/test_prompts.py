"""Prompts: wordings are spread over questions alike for all groups; peers stay readable."""

import re

import pytest

from envs.groups import Exchange, Group, load_pack
from envs.prompts import MAX_PEER_CHARS, opening_messages, variant_of, with_peers
from envs.truthworld.facts import load_facts, load_tastes

GROUP = Group(
    name="a",
    profiles=("first", "second", "third"),
    histories=tuple((Exchange(question=f"q{i}", answer=f"a{i}"),) for i in range(3)),
)


def heard(*answers):
    return with_peers([], "mine", answers)[-1]["content"]


def test_a_wording_depends_on_the_question_alone_and_all_are_used():
    chosen = [variant_of(f"q{i}", 3) for i in range(600)]
    assert chosen == [variant_of(f"q{i}", 3) for i in range(600)]
    assert all(150 < chosen.count(v) < 250 for v in range(3))
    assert {variant_of(f"q{i}", 1) for i in range(50)} == {0}


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_the_wording_is_that_of_its_number(variant):
    explicit = opening_messages("Why?", "explicit", GROUP, variant=variant)
    implicit = opening_messages("Why?", "implicit", GROUP, variant=variant)
    assert explicit[0]["content"] == GROUP.profiles[variant]
    assert [m["content"] for m in implicit] == [f"q{variant}", f"a{variant}", "Why?"]


def test_a_group_with_one_wording_is_asked_in_it_under_every_number():
    group = load_pack("truthworld").groups[0]
    for mode in ("explicit", "implicit"):
        prompts = [opening_messages("Why?", mode, group, variant=v) for v in range(4)]
        assert prompts == [prompts[0]] * 4


def test_truthworlds_answers_are_heard_as_they_always_were():
    choices = {c for q in [*load_facts(), *load_tastes()] for c in q.choices}
    assert len(choices) > 100
    for choice in choices:
        assert heard(choice, "Rome") == f"Peers say: {choice}; Rome."


def test_silence_and_unreadable_answers_are_not_heard():
    assert heard("abstain", "unparsed") == "Peers say: nothing."
    assert heard("abstain", "Rome") == "Peers say: Rome."


@pytest.mark.parametrize("awkward", ["It is so.", "one; two", "two\nlines", "x" * 81])
def test_answers_that_would_run_together_are_numbered(awkward):
    said = heard("short", awkward)
    assert said == f"Peers say:\n1. short\n2. {' '.join(awkward.split())}"


def test_a_long_answer_is_cut_at_a_word_and_the_message_says_so():
    answer = " ".join(f"word{i}" for i in range(400))
    said = heard(answer, "short")
    first = said.splitlines()[1].removeprefix("1. ").removesuffix(" [...]")
    assert answer.startswith(f"{first} ") and MAX_PEER_CHARS - 10 < len(first) <= MAX_PEER_CHARS
    assert re.match(rf"Peers say \(cut after {MAX_PEER_CHARS} characters", said)
    assert said.endswith("\n2. short")


def test_an_answer_that_just_fits_is_not_cut():
    fits = ("word " * MAX_PEER_CHARS)[: MAX_PEER_CHARS - 1] + "x"
    assert heard(fits) == f"Peers say:\n1. {' '.join(fits.split())}"
    assert "[...]" in heard(fits + "y")
