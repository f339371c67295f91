"""Differences over seeds: paired, hierarchical, never pooled."""

import math
from typing import Any

import numpy as np
import pytest

from trialign_ray.errors import DataError, ShapeError
from trialign_ray.ops.seeds_statistics import (
    all_correct,
    hierarchical_interval,
    mean_accuracy,
    worst_group,
)
from trialign_ray.ops.statistics import bootstrap_interval

OPTIONS: dict[str, Any] = {"confidence": 0.95, "num_resamples": 1000, "seed": 0}
OPTIONS_OF_SEED_1: dict[str, Any] = {**OPTIONS, "seed": 1}


def draw(generator, accuracy_G, num_questions):
    """Independent answers with the given accuracy by group."""
    return generator.random((len(accuracy_G), num_questions)) < np.array(accuracy_G)[:, None]


def width(interval):
    return interval[1] - interval[0]


def test_statistics_by_hand():
    scores = np.array([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])  # means 3/4 and 1/4
    assert worst_group(scores) == 0.25 and mean_accuracy(scores) == 0.5
    assert all_correct(scores) == 0.25  # the first question only
    stacked = np.stack([scores, 1 - scores], 1)  # (G, 2, X): the middle axis is kept
    assert worst_group(stacked).tolist() == [0.25, 0.25]
    assert all_correct(stacked).tolist() == [0.25, 0.25]


def test_a_method_does_not_differ_from_itself():
    generator = np.random.default_rng(0)
    runs = [draw(generator, [0.5, 0.9], n) for n in (40, 50, 60)]
    for shared in (False, True):
        chosen = [r[:, :40] for r in runs] if shared else runs
        result = hierarchical_interval(
            chosen, chosen, worst_group, **OPTIONS, shared_questions=shared
        )
        assert result.mean == 0 and result.interval == [0, 0] and result.by_seed == [0, 0, 0]


def test_the_mean_is_over_seeds_not_over_questions():
    # Seed 0: 2 questions, +1. Seed 1: 8 questions, 0. Pooled it would be .2.
    first = [np.zeros((1, 2)), np.zeros((1, 8))]
    second = [np.ones((1, 2)), np.zeros((1, 8))]
    result = hierarchical_interval(first, second, worst_group, **OPTIONS)
    assert result.mean == 0.5 and result.by_seed == [1.0, 0.0]
    # Two of two draws are seed 0 with probability 1/4, and seed 1 as often: the ends are reached.
    assert result.interval == [0.0, 1.0]


def test_a_planted_difference_is_covered_and_its_sign_is_clear():
    generator = np.random.default_rng(1)
    first = [draw(generator, [0.9, 0.4], 200) for _ in range(5)]
    second = [draw(generator, [0.9, 0.7], 200) for _ in range(5)]
    result = hierarchical_interval(first, second, worst_group, **OPTIONS)
    low, high = result.interval
    assert 0 < low < 0.3 < high
    reverse = hierarchical_interval(second, first, worst_group, **OPTIONS)
    assert reverse.interval == pytest.approx([-high, -low])


def test_equal_methods_are_seldom_told_apart():
    # Seeds move accuracy by +-.1, without any difference on average; 95 % intervals of 6 seeds
    # are a little too narrow, so that up to 15 of 100 may miss 0. Pooled ones miss it far oftener.
    generator = np.random.default_rng(2)
    missed = pooled_missed = 0
    for trial in range(100):
        shift = generator.normal(0, 0.1, 6)
        first = [draw(generator, [0.5], 100) for _ in shift]
        second = [draw(generator, [0.5 + d], 100) for d in shift]
        own = {"confidence": 0.95, "num_resamples": 200, "seed": trial}
        low, high = hierarchical_interval(first, second, mean_accuracy, **own).interval
        missed += not low <= 0 <= high
        pooled = np.concatenate([np.concatenate(first, 1), np.concatenate(second, 1)]).astype(float)
        low, high = bootstrap_interval(
            pooled, lambda s: s[1].mean(-1) - s[0].mean(-1), 0.95, 200, trial
        )
        pooled_missed += not low <= 0 <= high
    assert missed <= 15 < pooled_missed


def test_the_variance_of_seeds_widens_the_interval_beyond_the_pooled_one():
    # Half of the seeds gain on every question, half lose on every question: pooled questions
    # look like 500 coin flips (standard error .04), five seeds say next to nothing.
    signs = [1.0, -1.0, 1.0, -1.0, 1.0]
    first = [np.full((1, 100), 0.5) for _ in signs]
    second = [np.full((1, 100), 0.5 + 0.5 * s) for s in signs]
    result = hierarchical_interval(first, second, mean_accuracy, **OPTIONS)
    pooled = bootstrap_interval(
        np.concatenate(second, 1) - 0.5, lambda s: s[0].mean(-1), 0.95, 1000, 0
    )
    assert width(result.interval) > 5 * width(pooled)
    # Exact: mean of 5 draws of +-.5 with P(+) = .6; the 2.5 % points are 1 and 5 gains of 5,
    # P(0 gains) = .4^5 = .010 < .025 < P(<= 1) = .087, and P(5) = .078 > .025.
    assert result.interval == pytest.approx([-0.3, 0.5])


def test_shared_questions_widen_the_interval_where_what_is_hard_is_shared():
    # Every seed gains on the same 30 of 60 questions: the seeds are copies, and averaging over
    # them must not shrink what chance in the choice of questions does.
    gain = np.arange(60) % 2
    first, second = [np.zeros((1, 60))] * 5, [gain[None].astype(float)] * 5
    nested = hierarchical_interval(first, second, mean_accuracy, **OPTIONS)
    shared = hierarchical_interval(first, second, mean_accuracy, **OPTIONS, shared_questions=True)
    ratio = width(shared.interval) / width(nested.interval)
    assert ratio == pytest.approx(math.sqrt(5), rel=0.2)
    # a binomial share of 60 at 1/2 has standard error .0645, times 2 * 1.96
    assert width(shared.interval) == pytest.approx(0.253, abs=0.03)


def test_results_depend_on_the_seed_alone():
    generator = np.random.default_rng(3)
    first, second = ([draw(generator, [0.5, 0.6], 50) for _ in range(3)] for _ in range(2))
    once = hierarchical_interval(first, second, all_correct, **OPTIONS)
    assert once == hierarchical_interval(first, second, all_correct, **OPTIONS)
    other = hierarchical_interval(first, second, all_correct, **OPTIONS_OF_SEED_1)
    assert once.interval != other.interval and once.mean == other.mean


def test_one_seed_has_a_difference_but_no_interval():
    result = hierarchical_interval([np.zeros((2, 9))], [np.ones((2, 9))], worst_group, **OPTIONS)
    assert result.mean == 1.0 and all(math.isnan(end) for end in result.interval)


def test_unpaired_runs_are_refused():
    with pytest.raises(DataError, match="same seeds"):
        hierarchical_interval([np.ones((1, 3))], [], worst_group, **OPTIONS)
    with pytest.raises(ShapeError, match="seed number 0"):
        hierarchical_interval([np.ones((1, 3))], [np.ones((1, 4))], worst_group, **OPTIONS)
    runs = [np.ones((1, 3)), np.ones((1, 4))]
    with pytest.raises(ShapeError, match="shared_questions"):
        hierarchical_interval(runs, runs, worst_group, **OPTIONS, shared_questions=True)
