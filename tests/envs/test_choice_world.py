"""CandidateChoiceWorld keeps RLlib's contract, shows a group its own candidates, and pays them."""

import logging
import warnings
from dataclasses import replace

import numpy as np
import pytest
from ray.rllib.utils.pre_checks.env import check_multiagent_environments

from envs.choice_world import CandidateChoiceWorld, ChoiceProblem
from envs.errors import ConfigError, DataError

NAN = np.nan


def problem() -> ChoiceProblem:
    """Two groups, three questions, up to three candidates of two features.

    On question 1 birch is absent; on question 2 nobody is there.
    """
    mask = np.array([[[1, 1, 1], [1, 1, 0], [0, 0, 0]], [[1, 1, 0], [0, 0, 0], [0, 0, 0]]], bool)
    reward = np.array(
        [
            [[1, 0, NAN], [2, -0.5, NAN], [NAN, NAN, NAN]],
            [[0.25, 0.75, 9], [NAN, NAN, NAN], [NAN, NAN, NAN]],
        ],
        np.float32,
    )
    features = np.arange(36, dtype=np.float32).reshape(2, 3, 3, 2)
    return ChoiceProblem(("amber", "birch"), features, reward, mask)


def random_problem(num_groups: int) -> ChoiceProblem:
    generator = np.random.default_rng(num_groups)
    shape = (num_groups, 6, 4)
    return ChoiceProblem(
        tuple(f"group {g}" for g in range(num_groups)),
        generator.normal(size=(*shape, 3)).astype(np.float32),
        generator.normal(size=shape).astype(np.float32),
        generator.random(shape) < 0.6,
    )


@pytest.mark.parametrize("num_groups", [1, 2, 12])
def test_rllibs_own_check_passes(num_groups, caplog):
    world = CandidateChoiceWorld(random_problem(num_groups))
    # The check returns early, with a warning, for an environment that lacks these.
    assert hasattr(world, "_agent_ids") and hasattr(world, "observation_space")
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        check_multiagent_environments(world)
    assert not caplog.records


def test_observations_lie_in_their_space_on_every_question():
    chosen = random_problem(3)
    world = CandidateChoiceWorld(chosen)
    for question in chosen.questions:
        observations, infos = world.reset(options={"question": question})
        assert observations and infos.keys() == observations.keys()
        for group, seen in observations.items():
            assert world.get_observation_space(group).contains(seen)


def test_an_observation_is_the_groups_own_features_and_which_places_hold_a_candidate():
    observations, _ = CandidateChoiceWorld(problem()).reset(options={"question": 0})
    # amber's features on question 0 are 0..5, two per candidate, each followed by 1.
    assert observations["amber"].tolist() == [0, 1, 1, 2, 3, 1, 4, 5, 1]
    # birch's begin at 18 (after amber's 3 x 3 x 2 numbers); its third place is padding: zeros.
    assert observations["birch"].tolist() == [18, 19, 1, 20, 21, 1, 0, 0, 0]


def test_what_a_group_sees_and_earns_does_not_depend_on_its_peers():
    both = problem()
    other = replace(both, features_GXKF=both.features_GXKF.copy(), reward_GXK=-both.reward_GXK)
    other.features_GXKF[1] += 7
    other.reward_GXK[0] *= -1
    for peers_action in (0, 1):
        seen, paid = [], []
        for each in (both, other):
            world = CandidateChoiceWorld(each)
            observations, _ = world.reset(options={"question": 0})
            _, rewards, *_ = world.step({"amber": 0, "birch": peers_action})
            seen.append(observations["amber"].tolist())
            paid.append(rewards["amber"])
        assert seen[0] == seen[1] and paid == [1.0, 1.0]


def test_absent_groups_are_in_no_dict():
    world = CandidateChoiceWorld(problem())
    observations, infos = world.reset(options={"question": 1})
    assert world.agents == ["amber"] and set(observations) == set(infos) == {"amber"}
    results = world.step({"amber": 0})
    assert all("birch" not in result for result in results)
    assert world.possible_agents == ["amber", "birch"]


def test_an_episode_is_one_step_that_terminates_and_does_not_truncate():
    world = CandidateChoiceWorld(problem())
    world.reset(options={"question": 0})
    _, rewards, terminated, truncated, infos = world.step({"amber": 0, "birch": 1})
    assert rewards == {"amber": 1.0, "birch": 0.75}
    assert terminated == {"amber": True, "birch": True, "__all__": True}
    assert not any(truncated.values())
    assert infos["birch"] == {"question": 0}


def test_what_is_not_known_pays_nothing_and_padding_pays_the_lowest_reward():
    world = CandidateChoiceWorld(problem())
    world.reset(options={"question": 0})
    # Lowest reward of a candidate: -0.5 (amber, question 1). The 9 stands on padding: ignored.
    _, rewards, *_ = world.step({"amber": 2, "birch": 2})
    assert rewards == {"amber": 0.0, "birch": -0.5}


def test_padding_never_pays_more_than_what_is_not_known():
    paid = replace(problem(), reward_GXK=np.ones((2, 3, 3), np.float32)).payoff_GXK
    assert paid[1, 0].tolist() == [1, 1, 0]


def test_a_seed_fixes_the_questions_and_empty_ones_are_never_drawn():
    first, second = CandidateChoiceWorld(problem()), CandidateChoiceWorld(problem())
    drawn = []
    for world in (first, second):
        infos = [world.reset(seed=3)[1], *(world.reset()[1] for _ in range(40))]
        drawn.append([info["amber"]["question"] for info in infos])
    assert drawn[0] == drawn[1] and set(drawn[0]) == {0, 1}


def test_rllibs_env_config_may_hold_the_problem():
    direct = CandidateChoiceWorld(problem())
    configured = CandidateChoiceWorld({"problem": problem()})
    for seed in range(3):
        assert direct.reset(seed=seed)[1] == configured.reset(seed=seed)[1]


def test_a_question_without_anybody_is_refused():
    for question in (2, 3, -1):
        with pytest.raises(DataError, match=f"no group has a candidate on question {question}"):
            CandidateChoiceWorld(problem()).reset(options={"question": question})


def test_problems_that_cannot_be_played_are_refused():
    good = problem()
    infinite = np.full_like(good.reward_GXK, np.inf)
    with pytest.raises(ConfigError, match="collect a log first"):
        replace(good, mask_GXK=np.zeros_like(good.mask_GXK))
    with pytest.raises(DataError, match="expected \\(G, X, K\\)"):
        replace(good, groups=("amber",))
    with pytest.raises(DataError, match="a feature of a candidate is NaN"):
        replace(good, features_GXKF=good.features_GXKF * NAN)
    with pytest.raises(DataError, match="a reward is infinite"):
        replace(good, reward_GXK=infinite)
