"""The arithmetic of a sweep, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import ConfigError
from tuning.trial_resources import TrialResources, total

FOUR_GROUPS = ({"CPU": 0.1}, *({"CPU": 0.2} for _ in range(4)), {"CPU": 0.1})


def fitting(bundles, *nodes):
    return TrialResources(tuple(bundles), tuple(nodes))


def test_two_trials_of_four_groups_fill_two_cpus():
    assert fitting(FOUR_GROUPS, {"CPU": 2.0}).at_once == 2  # .1 + 4 * .2 + .1 = 1


def test_tenths_add_up_without_rounding_a_trial_away():
    assert fitting([{"CPU": 0.1}] * 3, {"CPU": 0.9}).at_once == 3


def test_trials_are_counted_by_what_fits_on_nodes_and_not_by_the_sum():
    """Two nodes of 1.5 CPUs have 3 together, but bundles of 1 fit once on each."""
    assert fitting([{"CPU": 1.0}], {"CPU": 1.5}, {"CPU": 1.5}).at_once == 2


def test_a_trial_may_spread_over_nodes():
    assert fitting([{"CPU": 1.0}, {"CPU": 1.0}], {"CPU": 1.0}, {"CPU": 1.0}).at_once == 1


def test_the_scarcer_resource_decides():
    bundles = [{"CPU": 0.5}, {"CPU": 0.5, "GPU": 0.5}]
    assert fitting(bundles, {"CPU": 8.0, "GPU": 1.0}).at_once == 2


def test_more_than_the_cluster_has_is_refused_with_both_numbers():
    with pytest.raises(ConfigError, match=r"needs 1 CPU .* 5 actors, the cluster has 0\.5; lower"):
        fitting(FOUR_GROUPS, {"CPU": 0.25}, {"CPU": 0.25}).require_feasible()


def test_an_actor_that_fits_on_no_node_is_refused_with_both_numbers():
    """Four CPUs in all, but no node has two."""
    with pytest.raises(ConfigError, match=r"needs 2 CPU on one node, the largest node has 1 CPU"):
        fitting([{"CPU": 0.1}, {"CPU": 2.0}], *[{"CPU": 1.0}] * 4).require_feasible()


def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"0\.5 GPU on one node, the largest node has 4 CPU, 0 G"):
        fitting([{"CPU": 0.1}, {"CPU": 1.0, "GPU": 0.5}], {"CPU": 4.0}).require_feasible()


def test_bundles_that_fit_in_sum_but_not_in_pieces_are_refused():
    """3 bundles of .6 need 1.8 of 2 CPUs, yet each node of 1 holds one of them."""
    with pytest.raises(ConfigError, match="in pieces into which its 3 bundles do not fit"):
        fitting([{"CPU": 0.6}] * 3, {"CPU": 1.0}, {"CPU": 1.0}).require_feasible()


def test_fewer_at_once_can_be_asked_for_but_not_more():
    resources = fitting(FOUR_GROUPS, {"CPU": 4.0})
    assert [resources.concurrent(most) for most in (None, 1, 3, 9)] == [4, 1, 3, 4]


def test_the_arithmetic_is_said_in_words():
    assert fitting(FOUR_GROUPS, {"CPU": 2.0, "memory": 1e9}).lines(12) == [
        "one trial: 1 CPU in 6 bundles (driver and 5 actors)",
        "cluster: 2 CPU on 1 node",
        "trials: 12, at most 2 at once",
    ]


amounts = st.integers(1, 20).map(lambda n: n / 10)


@given(
    st.lists(amounts, min_size=1, max_size=5), st.lists(amounts.map(lambda a: a * 4), min_size=1)
)
def test_what_is_placed_never_exceeds_what_is_there(bundles, nodes):
    resources = fitting([{"CPU": b} for b in bundles], *[{"CPU": n} for n in nodes])
    used = resources.at_once * total(resources.bundles)["CPU"]
    assert used <= total(resources.nodes)["CPU"] + 1e-9
    if len(nodes) == 1:  # on one node nothing is lost but what is less than a trial
        assert nodes[0] - used < total(resources.bundles)["CPU"] + 1e-9
