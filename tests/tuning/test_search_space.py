"""What may be searched: ranges with reasons, every point a valid configuration, nothing ignored."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trialign_ray.algorithms.trialign import OPTION_KEYS
from trialign_ray.checks import check_names
from trialign_ray.config import load_config
from trialign_ray.errors import ConfigError
from tuning.search_conditions import WELFARE_OPTIONS
from tuning.search_points import grid_points, spread_points
from tuning.search_ranges import RANGES, SHIPPED
from tuning.search_space import Space, override, read_space

OWN = """
targets.penalty_weight: {loguniform: [0.03, 10], reason: what I can afford}
targets.welfare: {choice: [log_nash, cvar, soft_min, power_mean, gini]}
targets.welfare_level: {quniform: [0.25, 1, 0.25]}
targets.welfare_temperature: {uniform: [0.05, 0.5], zero_below: 0.06}
clone.steps: {qrandint: [10, 60, 10]}
clone.lora_rank: {randint: [4, 17]}
clone.batch_size: {lograndint: [2, 33]}
clone.extraction: {choice: [clone, listwise, null]}
critic.later_turns: {choice: [true, false]}
algorithm: {choice: [trialign, sft]}
"""


def space_of(text: str | None, *sets: str, tmp_path=None) -> Space:
    """A shipped space by name, or one of a YAML text."""
    if tmp_path is not None:
        (tmp_path / "space.yaml").write_text(text or "")
        text = str(tmp_path / "space.yaml")
    return read_space(text, load_config(None, list(sets)), check_names)


SPACES = {name: space_of(name) for name in SHIPPED}


@pytest.fixture(scope="module")
def own_space(tmp_path_factory) -> Space:
    text = OWN.replace(", zero_below: 0.06", "").replace("[trialign, sft]", "[trialign]")
    return space_of(text, tmp_path=tmp_path_factory.mktemp("space"))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_every_point_is_a_configuration_that_could_be_typed(own_space, data):
    space = data.draw(st.sampled_from([*SPACES.values(), own_space]))
    shares = st.floats(0, 1)
    point = {d.key: d.at(data.draw(shares)) for d in space.dimensions}
    config = load_config(None, space.overrides(point))  # as --set would read it
    check_names(config)
    for key, value in space.settings(point).items():
        section, _, name = key.partition(".")
        assert getattr(getattr(config, section), name) == value if name else config.algorithm
    assert set(space.settings(point)) | set(space.idle(point)) == {d.key for d in space.dimensions}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_tune_draws_is_valid_too(own_space, seed):
    for space in (SPACES["all"], own_space):
        drawn = {key: d.sample(random_state=seed) for key, d in space.param_space().items()}
        config = load_config(None, space.overrides(drawn))
        check_names(config)
        for d in space.dimensions:
            assert d.contains(d.value(drawn[d.key])), d.key


def test_default_values_lie_inside_every_shipped_range():
    config = load_config(None)
    for space in SPACES.values():
        for d in space.dimensions:
            section, _, name = d.key.partition(".")
            assert d.contains(getattr(getattr(config, section), name)), d.key
    assert all(given["reason"] for given in RANGES.values())


def test_a_small_penalty_weight_is_no_penalty():
    penalty = SPACES["default"].dimensions[0]
    assert penalty.value(0.012) == 0.0 and penalty.value(0.031) == 0.031
    zeros = [p for p in spread_points([penalty], 256, seed=0) if penalty.value(p[penalty.key]) == 0]
    # ln(.03 / .01) / ln(10 / .01) = .159 of the draws
    assert len(zeros) / 256 == pytest.approx(0.159, abs=0.01)
    assert [penalty.value(v) for v in penalty.levels(3)] == [0.0, 0.03, 10.0]


def test_a_dimension_that_a_point_does_not_read_is_left_out_and_named():
    space = SPACES["all"]
    point = {d.key: d.at(0.5) for d in space.dimensions}
    point |= {"targets.welfare": "log_nash", "targets.players": "group_objectives"}
    assert "targets.welfare_exponent" not in space.settings(point)
    assert space.idle(point) == {
        "targets.welfare_exponent": "targets.welfare is power_mean",
        "targets.personalization_weight": "targets.players is groups",
    }
    point |= {"targets.welfare": "power_mean", "targets.players": "groups"}
    assert space.idle(point) == {}
    told = "\n".join(space.lines())
    assert "targets.welfare_exponent: uniform -4 to 1 (only where targets.welfare is p" in told


def test_options_of_welfares_are_the_solvers_own():
    theirs = {key: name for name, keys in OPTION_KEYS.items() for key in keys.values()}
    assert theirs == WELFARE_OPTIONS


def test_a_shipped_space_leaves_out_what_the_configuration_never_reads():
    space = space_of("default", "algorithm=awr")
    assert [d.key for d in space.dimensions] == ["clone.learning_rate"]
    assert any("targets.penalty_weight: left out" in line for line in space.lines())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("penalty_weight: {uniform: [0, 1]}", "did you mean targets.penalty_weight"),
        ("targets.penalty_wieght: {uniform: [0, 1]}", "did you mean targets.penalty_weight"),
        ("targets.lambda: {uniform: [0, 1]}", "called 'targets.penalty_weight'"),
        ("collect.turns: {randint: [1, 3]}", "which all trials share"),
        ("seed: {randint: [1, 3]}", "which all trials share"),
        ("targets.kl_weight: {uniform: [1, 1]}", "empty range"),
        ("targets.kl_weight: {loguniform: [2, 1]}", "empty range"),
        ("clone.lora_rank: {randint: [4, 5]}", "empty range, and the upper end is not drawn"),
        ("clone.lora_rank: {choice: []}", "choice is empty"),
        ("clone.lora_rank: {choice: [4, 4]}", "names a value twice"),
        ("clone.lora_rank: {choice: [[4], [8]]}", "expected numbers, words"),
        ("clone.lora_rank: {randint: [1.5, 4]}", "whole numbers"),
        ("targets.penalty_weight: {loguniform: [0, 1]}", "starts above 0"),
        ("targets.penalty_weight: {loguniform: [0.1, .nan]}", "expected 2 numbers"),
        ("targets.penalty_weight: {loguniform: [0.1, 1], zero_below: 3}", "never or always"),
        ("targets.penalty_weight: {quniform: [0.1, 1, 0.25]}", "both ends are multiples"),
        ("targets.penalty_weight: {normal: [0, 1]}", "expected one of uniform"),
        ("targets.penalty_weight: 3", "expected one of uniform"),
        ("targets.kl_weight: {uniform: [0, 1]}", "targets.kl_weight is 0"),
        ("targets.welfare: {choice: [log_nash, nash]}", "targets.welfare is 'nash'"),
        ("targets.welfare_exponent: {uniform: [0, 1]}", "only where targets.welfare is power_mean"),
        ("critic.expectile: {uniform: [0.5, 0.9]}", "only where critic.discount is above 0"),
        (
            "targets.truth_weight: {choice: [0, 1]}\n"
            "targets.personalization_weight: {choice: [0, 1]}\n"
            "targets.players: {choice: [groups, group_objectives]}",
            "both 0",
        ),
        ("", "no mapping"),
        ("- a", "no mapping"),
        ("a: [", "not readable YAML"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_with_the_reason(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        space_of(text, tmp_path=tmp_path)


def test_a_space_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="penalties, default, all or the path"):
        space_of("wide")


def test_numbers_that_yaml_reads_as_words_are_numbers(tmp_path):
    space = space_of("clone.learning_rate: {loguniform: [1e-4, 1e-2]}", tmp_path=tmp_path)
    assert space.dimensions[0].bounds == (1e-4, 1e-2)


def test_values_are_read_back_as_they_were():
    import yaml

    for value in (1e-05, 0.03, 4, True, None, "null", "log_nash", "4", "a: b"):
        key, _, raw = override("clone.x", value).partition("=")
        assert key == "clone.x" and yaml.safe_load(raw) == value


def test_a_grid_holds_the_ends_and_every_option():
    space = SPACES["default"]
    points = grid_points(space.dimensions)
    assert len(points) == 3**6
    assert {p["targets.welfare_exponent"] for p in points} == {-4.0, -1.5, 1.0}
