"""Search by name: what Ray Tune is handed, without starting it."""

import pickle
from typing import Any

import pytest
from ray.tune.search import Searcher

from tests.tuning.planted_sweep import OBJECTIVES, planted_space
from trialign_ray.checks import check_names
from trialign_ray.config import load_config
from trialign_ray.errors import ConfigError
from tuning.search_points import spread_points
from tuning.search_space import Space, read_space
from tuning.searchers import grid_settings, make_searching, random_points
from tuning.sweep_plan import OBJECTIVES as OBJECTIVE_NAMES
from tuning.sweep_plan import SEARCHES, SweepPlan


def planned(search: Any, num_trials: int = 8, seed: int = 0, **changes: Any) -> SweepPlan:
    return SweepPlan(search=search, num_trials=num_trials, seed=seed, **changes)


def drawn(search: Any, space: Space, count: int = 6, seed: int = 0, start=()) -> list[Any]:
    """What the first trials would be given, each told a planted result when it is done."""
    searcher = make_searching(planned(search, count, seed), space, start).search_alg
    settings = []
    for i in range(count):
        settings.append(searcher.suggest(f"t{i}"))
        result = dict(zip(OBJECTIVE_NAMES, OBJECTIVES[i % len(OBJECTIVES)], strict=True))
        searcher.on_trial_complete(f"t{i}", {**result, "training_iteration": 1})
    return settings


@pytest.mark.parametrize("search", ["tpe", "nsga2", "random", "asha"])
def test_every_draw_is_a_setting_and_one_seed_decides_it(search):
    space = planted_space()
    first = drawn(search, space)
    keys = {d.key for d in space.dimensions}
    assert first == drawn(search, space) != drawn(search, space, seed=1)
    for settings in first:
        assert set(settings) <= keys
        read = "targets.welfare_exponent" in settings
        assert read == (settings["targets.welfare"] == "power_mean")
        check_names(load_config(None, [f"{k}={v}" for k, v in settings.items()]))


@pytest.mark.parametrize("search", ["tpe", "nsga2", "random", "asha"])
def test_start_points_are_trained_first(search):
    space = planted_space()
    start = spread_points(space.dimensions, 3, seed=7)
    settings = drawn(search, space, start=start)
    assert settings[:3] == [space.settings(point) for point in start]
    assert len(settings) == 6 and settings[3] not in settings[:3]


def test_more_start_points_than_trials_are_cut():
    space = planted_space()
    start = spread_points(space.dimensions, 8, seed=7)
    assert drawn("random", space, 2, start=start) == [space.settings(p) for p in start[:2]]


def test_a_longer_random_search_begins_with_a_shorter_ones_points():
    space = planted_space()
    assert random_points(space, 9, 0)[:4] == random_points(space, 4, 0)


@pytest.mark.parametrize("search", ["tpe", "nsga2", "random"])
def test_a_search_goes_on_after_it_was_saved_as_if_it_had_not_been(search, tmp_path):
    space = planted_space()
    whole = drawn(search, space, 6)
    first = make_searching(planned(search, 6), space).search_alg
    for i in range(3):
        first.suggest(f"t{i}")
        result = dict(zip(OBJECTIVE_NAMES, OBJECTIVES[i], strict=True))
        first.on_trial_complete(f"t{i}", {**result, "training_iteration": 1})
    first.save(str(tmp_path / "state"))
    again = make_searching(planned(search, 6), space).search_alg
    again.restore(str(tmp_path / "state"))
    assert again.suggest("t3") == whole[3]


def test_a_list_of_points_ends():
    searching = make_searching(planned("random", 2), planted_space())
    assert searching.num_samples == 2 and searching.param_space == {}
    for i in range(2):
        assert isinstance(searching.search_alg.suggest(f"t{i}"), dict)
    assert searching.search_alg.suggest("t2") == Searcher.FINISHED


def test_a_grid_holds_each_setting_once():
    space = planted_space("default")
    settings = grid_settings(space)
    # 3 lambdas x 3 betas x (log_nash + soft_min + 3 exponents) x 3 xi x 3 rates
    assert len(settings) == 3 * 3 * (1 + 1 + 3) * 3 * 3
    searching = make_searching(planned("grid", 9), planted_space("penalties"))
    assert searching.num_samples == 9


def test_a_grid_that_is_larger_than_asked_for_is_refused_with_both_numbers():
    with pytest.raises(ConfigError, match=r"405 points .* --num-trials is 12"):
        make_searching(planned("grid", 12), planted_space())
    with pytest.raises(ConfigError, match="has its own points"):
        make_searching(planned("grid", 9), planted_space("penalties"), [{}])


def test_asha_stops_trials_by_the_declared_metric():
    searching = make_searching(planned("asha", metric="truth_gap"), planted_space())
    assert searching.search_alg.metric == "truth_gap" and searching.search_alg.mode == "min"
    assert searching.scheduler is not None
    assert (searching.scheduler._metric, searching.scheduler._max_t) == ("truth_gap", 4)
    for search in ("tpe", "nsga2", "random"):
        assert make_searching(planned(search), planted_space()).scheduler is None


def test_pbt_moves_within_the_ranges_and_through_options(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "targets.penalty_weight: {loguniform: [0.01, 10], zero_below: 0.03}\n"
        "targets.welfare_exponent: {uniform: [-4, 1]}\n"
        "targets.welfare: {choice: [log_nash, power_mean]}\n"
    )
    space = read_space(str(tmp_path / "s.yaml"), load_config(None), check_names)
    searching = make_searching(planned("pbt", 5), space)
    assert searching.num_samples == 5 and set(searching.param_space) == {
        d.key for d in space.dimensions
    }
    explore = searching.scheduler._custom_explore_fn
    moved = explore(
        {
            "targets.penalty_weight": 12.0,
            "targets.welfare_exponent": 1.2,
            "targets.welfare": "log_nash",
        }
    )
    assert moved["targets.penalty_weight"] == 10 and moved["targets.welfare_exponent"] == 1
    assert searching.scheduler._hyperparam_mutations["targets.welfare"] == [
        "log_nash",
        "power_mean",
    ]


def test_pbt_refuses_what_another_trials_adapters_would_not_fit():
    with pytest.raises(ConfigError, match=r"pbt cannot search clone\.lora_rank"):
        make_searching(planned("pbt"), planted_space("all"))


@pytest.mark.parametrize("search", [s for s in SEARCHES if s != "grid"])
def test_what_tune_is_handed_can_be_written_to_its_state(search):
    searching = make_searching(planned(search), planted_space())
    pickle.loads(pickle.dumps((searching.scheduler, searching.param_space)))
