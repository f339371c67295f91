"""The trial that is chosen: better by a lower bound, and at nobody's expense."""

import math

import numpy as np
import pytest
import torch

from trialign_ray.errors import DataError
from trialign_ray.ops.welfare import LogNash
from trialign_ray.selection import SelectionRule, Trial, log_nash, select

GROUPS = ("blue", "green")
NUM = 200
RULE = SelectionRule(penalty_weight=0.5, num_resamples=400)


def share(portion, num=NUM):
    """The first `portion` of the questions."""
    return np.arange(num) < round(portion * num)


def trial(name, truth, adherence=(0.9, 0.9), inconsistency=None):
    correct = np.stack([share(p) for p in truth])
    disagree = (correct[0] != correct[1]).astype(float)
    return Trial(
        name=name,
        settings={"penalty_weight": 1.0},
        correct_GX=correct,
        adherence_GA=np.stack([share(p, 250) for p in adherence]),
        inconsistency_X=disagree if inconsistency is None else inconsistency,
    )


BASE = trial("behaviour", (0.8, 0.3))


def choose(*candidates, rule=RULE, baseline=BASE, seed=0):
    return select(candidates, baseline, GROUPS, rule, seed=seed)


def named(selection, name):
    return next(t for t in selection.trials if t.trial.name == name)


def test_the_welfare_is_log_nash():
    u = torch.tensor([0.5, 0.001, 0.25], dtype=torch.float64)
    assert float(log_nash(u.numpy())) == pytest.approx(float(LogNash().value(u)))


def test_the_score_by_hand():
    # W = (ln .8 + ln .6) / 2, D = the share .2 of questions where the two groups differ
    chosen = choose(trial("a", (0.8, 0.6))).winner
    assert chosen.score == pytest.approx((math.log(0.8) + math.log(0.6)) / 2 - 0.5 * 0.2)
    before = (math.log(0.8) + math.log(0.3)) / 2 - 0.5 * 0.5
    assert chosen.gain == pytest.approx(chosen.score - before)
    assert chosen.lcb < chosen.score and chosen.gain_lcb < chosen.gain


def test_the_bound_is_one_sided():
    # All right, so W = 0; D is 0 or 1, half each: the score -D has standard error .5 / sqrt(200),
    # and 5 % of resamples lie more than 1.645 of it below.
    even = trial("even", (1.0, 1.0), inconsistency=share(0.5) * 1.0)
    chosen = choose(even, rule=SelectionRule(1.0, num_resamples=4000)).trials[0]
    assert chosen.score == pytest.approx(-0.5)
    assert chosen.score - chosen.lcb == pytest.approx(1.645 * 0.5 / math.sqrt(NUM), rel=0.08)


def test_the_planted_winner_wins_wherever_it_stands():
    best, middle = trial("best", (0.9, 0.85)), trial("middle", (0.85, 0.6))
    for order in ((best, middle), (middle, best)):
        chosen = choose(*order)
        assert chosen.beats_baseline and chosen.winner.trial.name == "best"
        assert [t.trial.name for t in chosen.trials] == ["best", "middle"]
        assert "best" in chosen.reason


def test_the_penalty_weight_decides_between_truth_and_consistency():
    split, level = trial("split", (0.95, 0.7)), trial("level", (0.8, 0.8))
    assert choose(split, level, rule=SelectionRule(0.0)).winner.trial.name == "split"
    assert choose(split, level, rule=SelectionRule(2.0)).winner.trial.name == "level"


def test_no_group_may_fall_below_the_baseline():
    robin_hood = trial("robin-hood", (0.79, 0.79))  # far better, but blue pays .01 for it
    modest = trial("modest", (0.8, 0.5))
    chosen = choose(robin_hood, modest)
    assert chosen.winner.trial.name == "modest"
    assert named(chosen, "robin-hood").score > chosen.winner.score
    (reason,) = named(chosen, "robin-hood").excluded
    assert "truth of blue falls from 0.800 to 0.790" in reason
    lenient = SelectionRule(0.5, truth_margin=0.01)
    assert choose(robin_hood, modest, rule=lenient).winner.trial.name == "robin-hood"


def test_style_may_not_be_sold_for_truth():
    bland = trial("bland", (0.9, 0.9), adherence=(0.9, 0.86))
    kept = trial("kept", (0.85, 0.85), adherence=(0.88, 1.0))  # .02 less is within the margin
    chosen = choose(bland, kept)
    assert chosen.winner.trial.name == "kept"
    assert "adherence of green" in named(chosen, "bland").excluded[0]


def test_if_everyone_is_excluded_the_baseline_stays_and_the_reasons_are_listed():
    chosen = choose(trial("a", (0.7, 0.9)), trial("b", (0.9, 0.9), adherence=(0.1, 0.9)))
    assert not chosen.beats_baseline and chosen.winner == chosen.baseline
    assert chosen.winner.trial is BASE
    assert "truth of blue" in chosen.reason and "adherence of blue" in chosen.reason
    assert choose().winner.trial is BASE and "no trials" in choose().reason


def test_the_steadier_of_two_trials_wins_though_its_score_is_a_little_lower():
    # Same truth. One disagrees by .2 on every question, the other by 1 on 19 % of them: its mean
    # penalty is smaller by .01, but a bound of 200 draws lies .046 (1.645 * sqrt(.19*.81/200)) off.
    steady = trial("steady", (0.9, 0.9), inconsistency=np.full(NUM, 0.2))
    noisy = trial("noisy", (0.9, 0.9), inconsistency=share(0.19)[::-1] * 1.0)
    chosen = choose(noisy, steady, rule=SelectionRule(2.0))
    assert named(chosen, "noisy").score > named(chosen, "steady").score
    assert chosen.winner.trial.name == "steady"


def test_noise_rarely_beats_the_baseline():
    # Trials that answer as well as the baseline, by independent luck, 3 at a time.
    generator = np.random.default_rng(0)
    quiet = np.zeros(NUM)

    def lucky(name):
        correct = generator.random((2, NUM)) < 0.6
        return Trial(name, {}, correct, np.ones((2, 1), dtype=bool), quiet)

    wins = {True: 0, False: 0}
    for _ in range(30):
        baseline, trials = lucky("behaviour"), [lucky(f"t{i}") for i in range(3)]
        for sure in wins:
            rule = SelectionRule(0.5, require_gain=sure, num_resamples=200)
            wins[sure] += choose(*trials, rule=rule, baseline=baseline).beats_baseline
    # 3 one-sided tests at 5 % give at most about 4.5 of 30; the guards alone let far more through
    assert wins[True] <= 7 < wins[False]


def test_the_choice_depends_on_the_seed_alone():
    candidates = (trial("a", (0.9, 0.5)), trial("b", (0.85, 0.6)))
    first, again = (choose(*candidates, seed=3) for _ in range(2))
    assert [t.as_row() for t in first.trials] == [t.as_row() for t in again.trials]
    assert choose(*candidates, seed=4).trials[0].lcb != first.trials[0].lcb


def test_groups_keep_their_names_in_any_order():
    swapped = [
        Trial(t.name, t.settings, t.correct_GX[::-1], t.adherence_GA[::-1], t.inconsistency_X)
        for t in (trial("a", (0.7, 0.9)), BASE)
    ]
    chosen = select(swapped[:1], swapped[1], GROUPS[::-1], RULE, seed=0)
    assert chosen.trials[0].excluded == choose(trial("a", (0.7, 0.9))).trials[0].excluded


def test_trials_on_other_questions_are_refused():
    short = Trial("short", {}, BASE.correct_GX[:, :50], BASE.adherence_GA, np.zeros(50))
    with pytest.raises(DataError, match="'short'"):
        choose(short)
    with pytest.raises(DataError, match="name of its own"):
        choose(BASE)
    nameless = trial("a", (0.9, 0.9), inconsistency=np.full(NUM, np.nan))
    with pytest.raises(DataError, match="not finite"):
        choose(nameless)
