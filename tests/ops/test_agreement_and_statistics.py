"""Consistency measures and intervals, on cases small enough to do by hand."""

import math

import numpy as np
import pytest

from trialign_ray.ops.agreement import agreement, fleiss_kappa, krippendorff_alpha
from trialign_ray.ops.statistics import (
    bootstrap_interval,
    cochran_q,
    gap_null,
    group_gap,
    holm,
    mcnemar_holm,
)

# Two groups, four questions: both right; the same falsehood; one right; different falsehoods.
CORRECT = np.array([[1, 0, 1, 0], [1, 0, 0, 0]], dtype=bool)
ANSWERS = np.array([[0, 1, 2, 3], [0, 1, 4, 5]])


def test_agreement_counts_each_kind_of_question():
    measured = agreement(CORRECT, ANSWERS)
    assert measured == {
        "all_correct": 0.25,
        "all_agree": 0.5,
        "agree_and_wrong": 0.25,
        "truth_given_known": 0.5,  # one of the two questions that some group is told rightly
    }


def test_truth_given_known_is_undefined_where_nobody_is_right():
    assert math.isnan(agreement(~CORRECT[:, :1], ANSWERS[:, :1])["truth_given_known"])


def test_all_wrong_alike_agrees_fully_and_is_never_right():
    # Consistency is perfect, accuracy 0: the share that counts agreement with truth stays 0.
    measured = agreement(np.zeros((3, 5), dtype=bool), np.full((3, 5), 7))
    assert measured["all_agree"] == measured["agree_and_wrong"] == 1.0
    assert measured["all_correct"] == 0.0


def test_identical_answers_have_full_agreement_by_definition():
    same = np.zeros((3, 5), dtype=int)
    assert fleiss_kappa(same) == krippendorff_alpha(same) == 1.0


def test_agreement_of_one_group_is_undefined():
    assert math.isnan(fleiss_kappa(ANSWERS[:1])) and math.isnan(krippendorff_alpha(ANSWERS[:1]))


def test_alpha_and_kappa_know_chance():
    # Two raters, answers a/b at random: observed agreement 1/2, expected 1/2 -> kappa 0.
    ratings = np.array([[0, 0, 1, 1], [0, 1, 0, 1]])
    assert fleiss_kappa(ratings) == pytest.approx(0.0)
    assert krippendorff_alpha(ratings) == pytest.approx(0.125)  # 1 - .5 / (2 * 4 * 4 / (8 * 7))


def test_an_interval_holds_the_value_and_is_repeatable():
    scores = np.random.default_rng(0).integers(0, 2, (2, 200)).astype(float)
    low, high = bootstrap_interval(scores, lambda s: s.mean(-1).min(0), 0.95, 500, 1)
    assert low < scores.mean(-1).min() < high
    assert [low, high] == bootstrap_interval(scores, lambda s: s.mean(-1).min(0), 0.95, 500, 1)


def test_groups_move_together_under_resampling():
    # After minus before is the same on every question, so its interval has no width.
    before = np.random.default_rng(0).integers(0, 2, 100).astype(float)
    both = np.stack([before, before + 0.5])
    interval = bootstrap_interval(both, lambda s: s[1].mean(-1) - s[0].mean(-1), 0.95, 200, 0)
    assert interval == pytest.approx([0.5, 0.5])


def test_equal_groups_show_a_gap_too():
    # EVALUATION: four equal groups (accuracy one half), N = 250: expected gap .050 to .065
    scores = np.random.default_rng(0).integers(0, 2, (4, 250)).astype(float)
    null, p_value = gap_null(scores, 500, 0)
    assert 0.04 < null < 0.08 and p_value > 0.05
    unfair = np.stack([np.ones(250), np.zeros(250)])
    assert group_gap(unfair) == 1.0 and gap_null(unfair, 200, 0)[1] == pytest.approx(1 / 201)


def test_tests_of_change():
    before, after = np.zeros((2, 10), dtype=bool), np.zeros((2, 10), dtype=bool)
    after[0] = True  # ten gains, none lost: exact McNemar 2 * .5^10, times 2 by Holm
    assert mcnemar_holm(before, after) == pytest.approx([2 * 2 * 0.5**10, 1.0])
    assert cochran_q(after) < 0.01 and cochran_q(before) == 1.0


def test_holm_takes_the_smallest_times_all_and_never_falls():
    # sorted .01 .02 .04: times 3, 2, 1 are .03 .04 .04; in the order given
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []
