"""Points on the central problem alone: which are worth training, before any is."""

import numpy as np
import pytest

from trialign_ray.checks import check_names
from trialign_ray.config import load_config
from trialign_ray.errors import ConfigError
from trialign_ray.targets_frontier import objectives
from trialign_ray.targets_prediction import read_critic, swept_log
from trialign_ray.targets_sweep import sweep
from tuning.prescreen import (
    Prescreened,
    fronts_of,
    prescreen,
    promises_of,
    promising,
    read_prescreen,
    write_prescreen,
)
from tuning.search_space import Space, read_space

# Three steps of a staircase, two below them, one below those: fronts 0, 0, 0, 1, 1, 2.
STAIRS = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])


def space_over(run, name: str = "default", *sets: str) -> Space:
    return read_space(name, load_config(run / "config.yaml", list(sets)), check_names)


@pytest.fixture(scope="module")
def screened(run) -> Prescreened:
    return prescreen(run, space_over(run), 24, 6, seed=0)


def test_fronts_are_peeled_one_after_the_other():
    assert fronts_of(STAIRS).tolist() == [0, 0, 0, 1, 1, 2]
    assert fronts_of(np.array([[1.0, 1.0], [1.0, 1.0]])).tolist() == [0, 0]


def test_whole_fronts_come_first_and_then_what_lies_far_apart():
    fronts = fronts_of(STAIRS)
    assert promising(STAIRS, fronts, 2) == [2, 0]  # the ends of the front, most truth first
    assert set(promising(STAIRS, fronts, 4)[:3]) == {0, 1, 2}
    assert promising(STAIRS, fronts, 9) == [2, 0, 1, 3, 4, 5]


def test_what_is_chosen_is_on_or_next_to_the_promised_front(screened):
    fronts = [screened.promises[i].front for i in screened.chosen]
    assert len(set(screened.chosen)) == 6 and fronts == sorted(fronts) and fronts[0] == 0
    left = [p.front for i, p in enumerate(screened.promises) if i not in screened.chosen]
    assert max(fronts) <= min(front for front in left if front >= 0)
    best = objectives(promises_of(screened))[:, 0].max()
    assert objectives(promises_of(screened, screened.chosen))[0, 0] == best


def test_a_promise_is_what_a_critic_fitted_under_that_configuration_says(run, screened):
    """Truth heads are shared between points; what each is promised must not depend on it."""
    space = space_over(run)
    for i in screened.chosen[:3]:
        promise = screened.promises[i]
        log = swept_log(read_critic(run, space.resolved(promise.point)), run)
        (point,) = sweep(log, [{}])
        assert point.prediction == promise.prediction
    unlike = {p.point["critic.pessimism"]: p for p in screened.promises}
    assert len(unlike) == len(screened.promises)


def test_dimensions_that_only_training_sees_are_drawn_too(screened):
    rates = {p["clone.learning_rate"] for p in screened.points}
    assert len(rates) == len(screened.points)


def test_the_same_seed_chooses_the_same_points(run, screened):
    again = prescreen(run, space_over(run), 24, 6, seed=0)
    assert again.points == screened.points
    assert prescreen(run, space_over(run), 24, 6, seed=1).points != screened.points


def test_what_was_swept_is_read_back(screened, tmp_path):
    assert read_prescreen(tmp_path) is None
    write_prescreen(screened, tmp_path)
    assert read_prescreen(tmp_path) == screened


def test_progress_is_told_and_summed_up(run):
    told = []
    result = prescreen(run, space_over(run, "penalties"), 8, 3, seed=0, on_done=told.append)
    assert told == list(range(1, 9))
    assert "prescreened 8 points" in result.words() and "3 to train" in result.words()


@pytest.mark.parametrize(
    ("sets", "swept", "message"),
    [
        ((), 2, "fewer points than --num-trials 6"),
        (("algorithm=awr",), 20, "central problem of algorithm trialign"),
        (("targets.target_inconsistency=0.1",), 20, "sweeps lambda itself"),
    ],
)
def test_what_cannot_be_prescreened_is_refused(run, sets, swept, message):
    with pytest.raises(ConfigError, match=message):
        prescreen(run, space_over(run, "default", *sets), swept, 6, seed=0)


def test_a_space_of_training_alone_cannot_be_prescreened(run, tmp_path):
    (tmp_path / "s.yaml").write_text("clone.learning_rate: {loguniform: [0.001, 0.01]}")
    with pytest.raises(ConfigError, match="leave it out"):
        prescreen(run, space_over(run, str(tmp_path / "s.yaml")), 20, 6, seed=0)
