"""Grid, Pareto set, recommendations, and which points are trained."""

import pytest

from trialign_ray.config import load_config
from trialign_ray.errors import ConfigError
from trialign_ray.run_directory import config_hash
from trialign_ray.run_variant import Realised
from trialign_ray.targets_frontier import chosen_to_train, find_frontier, rank_agreement
from trialign_ray.targets_prediction import Prediction
from trialign_ray.targets_sweep import Point, overrides_of
from tuning.frontier_grid import default_grid, setting_name
from tuning.frontier_training import TrainedPoint, correlations


def promise(truth: float, style: float, inconsistency: float = 0.0) -> Prediction:
    return Prediction({"a": truth, "b": 1.0}, {"a": style, "b": 1.0}, inconsistency, 0.0)


def points_at(*promises: Prediction) -> list[Point]:
    return [Point({"penalty_weight": float(i)}, p) for i, p in enumerate(promises)]


def test_the_default_grid_has_500_settings_and_every_one_is_a_valid_configuration():
    grid = default_grid()
    assert len(grid) >= 500
    hashes = set()
    for settings in grid:
        config = load_config(None, overrides_of(load_config(None), settings))
        assert {k: getattr(config.targets, k) for k in settings} == settings
        hashes.add(config_hash(config))
    assert len(hashes) == len(grid) == len({setting_name(s) for s in grid})


@pytest.mark.parametrize("count", (1, 7, 600, 630, 631, 2000))
def test_a_grid_has_as_many_different_settings_as_were_asked_for(count):
    grid = default_grid(count)
    assert len(grid) == count == len({setting_name(s) for s in grid})


def test_a_grid_is_the_same_every_time_and_spans_lambda_from_zero_to_ten():
    assert default_grid() == default_grid()
    weights = sorted({s["penalty_weight"] for s in default_grid()})
    assert weights[0] == 0 and weights[1] == 0.03 and weights[-1] == 10


@pytest.mark.parametrize("count", (0, -3))
def test_a_grid_of_no_settings_is_refused(count):
    with pytest.raises(ConfigError, match="at least 1"):
        default_grid(count)


def test_the_pareto_set_equals_brute_force(log, points):
    frontier = find_frontier(points, log.predict(log.reference_GXK))

    def at(point: Point, count: int) -> tuple[float, ...]:
        p = point.promise
        return tuple(
            round(v, 3) for v in (p.worst_truth, p.worst_personalization, -p.inconsistency)
        )[:count]

    for count, found in ((3, frontier.pareto), (2, frontier.line)):
        rows = [at(p, count) for p in points]
        front = {
            r
            for r in rows
            if not any(
                all(a >= b for a, b in zip(other, r, strict=True)) and other != r for other in rows
            )
        }
        assert sorted(rows[i] for i in found) == sorted(front)
        assert all(rows.index(rows[i]) == i for i in found)
    assert {at(points[i], 2) for i in frontier.line} <= {at(points[i], 2) for i in frontier.pareto}


def test_hypervolume_and_recommendations_by_hand():
    # Log: truth .2, style .9. Kept: style >= .88 and truth >= .2, so neither .9/.5 nor .1/.99.
    # Line .6/.89, .5/.95, .3/.96, scaled (1, 0), (.667, .857), (0, 1): the middle one is the knee.
    points = points_at(
        promise(0.9, 0.5),
        promise(0.6, 0.89, 0.3),
        promise(0.5, 0.95, 0.2),
        promise(0.3, 0.96, 0.1),
        promise(0.1, 0.99),
        promise(0.585, 0.885, 0.05),
    )
    frontier = find_frontier(points, promise(0.2, 0.9))
    assert [r.index for r in frontier.recommended] == [1, 2, 5]
    assert frontier.line == (0, 1, 2, 3, 4)
    assert frontier.pareto == (
        0,
        1,
        5,
        2,
        3,
        4,
    )  # 5 is more consistent than 1, which beats it in both
    # .9*.5 + .6*(.89-.5) + .5*(.95-.89) + .3*(.96-.95) + .1*(.99-.96)
    assert frontier.hypervolume == pytest.approx(0.45 + 0.234 + 0.03 + 0.003 + 0.003)


def test_nothing_is_recommended_that_takes_from_a_group_what_it_had():
    frontier = find_frontier(points_at(promise(0.9, 0.5)), promise(0.2, 0.9))
    assert [r.index for r in frontier.recommended] == [None, None, None]
    assert chosen_to_train(points_at(promise(0.9, 0.5)), frontier, 1) == [0]


def test_points_to_train_are_different_spread_and_partly_off_the_front():
    line = [promise(t / 10, 1 - t / 10) for t in range(1, 10)]
    bad = [promise(0.1, 0.1), promise(0.2, 0.2)]
    points = points_at(*line, *bad)
    frontier = find_frontier(points, promise(0.0, 0.0))
    chosen = chosen_to_train(points, frontier, 6)
    assert len(set(chosen)) == 6
    assert {0, 4, 8} <= set(chosen[:4]) and 9 in chosen[4:]
    assert chosen_to_train(points, frontier, 1) == [8]
    assert sorted(chosen_to_train(points, frontier, len(points))) == list(range(len(points)))
    with pytest.raises(ConfigError, match="12 points to train"):
        chosen_to_train(points, frontier, 12)


def test_rank_agreement_is_none_where_nothing_varies():
    assert rank_agreement([0.1, 0.2, 0.9], [0.5, 0.6, 0.7]) == pytest.approx(1.0)
    assert rank_agreement([0.1, 0.2, 0.9], [0.5, 0.5, 0.5]) is None
    assert rank_agreement([0.1], [0.5]) is None


def test_correlations_leave_out_what_failed():
    points = points_at(promise(0.1, 0.3), promise(0.5, 0.2), promise(0.9, 0.1))

    def trained(index: int, truth: float) -> TrainedPoint:
        liked = {"test": {"a": 1 - truth}}
        done = Realised({"test": {"a": truth}}, liked, {"test": {"a": 0.5}})
        return TrainedPoint(index, "", (), done)

    broken = TrainedPoint(2, "", (), Realised(failure="killed"))
    found = correlations(points, [trained(0, 0.4), trained(1, 0.2), broken])
    rho = {"truth": pytest.approx(-1.0), "personalization": pytest.approx(-1.0), "adherence": None}
    assert found == {"test": rho}
    assert correlations(points, [broken]) == {}
