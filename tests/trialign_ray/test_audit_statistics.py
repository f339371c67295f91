"""The matched test behind "surely served worse", and the words that figures are put into."""

from typing import Any

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from trialign_ray.audit.verdict import p_text, percent
from trialign_ray.ops.matched_controls import matched_p


def test_with_one_control_it_is_mcnemars_exact_test():
    generator = np.random.default_rng(0)
    for _ in range(20):
        own, control = generator.random((2, 40)) < [[0.6], [0.8]]
        table = [[0, int((own & ~control).sum())], [int((~own & control).sum()), 0]]
        result: Any = mcnemar(table, exact=True)
        expected = float(result.pvalue)
        assert matched_p(own, control[None]) == pytest.approx(expected)


def test_two_controls_by_hand():
    """Three questions, both controls right, the group wrong: of two right answers among three users
    the group has one with probability 2/3, so none at all has (1/3)^3, twice that two-sided."""
    own, controls = np.zeros(3, bool), np.ones((2, 3), bool)
    assert matched_p(own, controls) == pytest.approx(2 / 27)


def test_questions_that_all_answer_alike_say_nothing():
    own, controls = np.array([0, 0, 0, 1, 1], bool), np.ones((2, 5), bool)
    controls[:, 3:] = True
    assert matched_p(own, controls) == pytest.approx(2 / 27)
    assert matched_p(np.ones(4, bool), np.ones((3, 4), bool)) == 1.0
    assert matched_p(np.zeros(0, bool), np.zeros((3, 0), bool)) == 1.0


def test_the_order_of_controls_does_not_matter():
    generator = np.random.default_rng(1)
    own, controls = generator.random(50) < 0.6, generator.random((4, 50)) < 0.7
    assert matched_p(own, controls) == matched_p(own, controls[::-1])


def test_a_group_like_its_controls_is_seldom_accused_where_a_vote_would_accuse_it():
    generator = np.random.default_rng(2)
    accused = voted = 0
    for _ in range(200):
        answers = generator.random((6, 100)) < 0.7
        accused += matched_p(answers[0], answers[1:]) < 0.05
        voted += matched_p(answers[0], (answers[1:].mean(0) > 0.5)[None]) < 0.05
    assert accused <= 20, "5 % is the level"
    assert voted > 60, "the majority of five is right more often than any one of them"


def test_words_do_not_say_all_or_none_where_it_is_not():
    assert [percent(x) for x in (0.0, 0.001, 0.174, 0.998, 1.0)] == [
        "0 %",
        "0.1 %",
        "17 %",
        "99.8 %",
        "100 %",
    ]
    assert [p_text(p) for p in (0.0001, 0.004, 0.03, 1.0)] == [
        "p < .001",
        "p = .004",
        "p = .03",
        "p = 1",
    ]
