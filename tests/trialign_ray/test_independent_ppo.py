"""RLlib's independent PPO learns each group's own reward, and leaves the process as it was."""

import hashlib
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from envs.choice_world import ChoiceProblem
from trialign_ray.actors.independent_ppo import (
    PPOSettings,
    choice_problem,
    train_independent_ppo,
)
from trialign_ray.critic import CandidateTensors
from trialign_ray.errors import ConfigError, ShapeError, WorkerError

pytestmark = pytest.mark.ray
NAN = math.nan
QUICK = PPOSettings(questions_per_iteration=256, minibatch_size=128)


def planted_problem() -> ChoiceProblem:
    """Feature 0 marks one candidate, feature 1 is noise. amber and birch are paid for the marked
    one, cedar for any other; birch is absent on every second question."""
    generator = np.random.default_rng(0)
    num_questions, width = 40, 5
    num_candidates = generator.integers(2, width + 1, (3, num_questions, 1))
    mask = np.arange(width) < num_candidates
    mask[1, ::2] = False
    marked = np.arange(width) == generator.integers(0, 2, (3, num_questions, 1))
    features = np.stack([marked, generator.random(marked.shape)], -1).astype(np.float32)
    reward = marked.astype(np.float32)
    reward[2] = 1 - reward[2]
    return ChoiceProblem(("amber", "birch", "cedar"), features, reward, mask)


def seeded_draws() -> list[Callable[[], float]]:
    """Draws from the three global generators, just seeded."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    return [random.random, np.random.random, lambda: float(torch.rand(()))]


def digest(policy: np.ndarray) -> str:
    return hashlib.sha256(policy.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def trained(ray_local):
    rewards = []
    policy = train_independent_ppo(
        planted_problem(),
        iterations=12,
        seed=5,
        settings=QUICK,
        on_iteration=lambda i, reward: rewards.append((i, reward)),
    )
    return policy, rewards


def test_every_row_is_a_distribution_over_candidates_and_absent_groups_have_none(trained):
    mask = planted_problem().mask_GXK
    policy = trained[0]
    assert policy.shape == mask.shape and (policy >= 0).all()
    assert (policy[~mask] == 0).all()
    np.testing.assert_allclose(policy.sum(-1), mask.any(-1), atol=1e-12)


def test_the_best_candidate_gets_nine_tenths_of_the_mass_where_uniform_gives_a_third(trained):
    problem = planted_problem()
    best = problem.features_GXKF[..., 0] == 1
    for g in (0, 1):
        present = problem.mask_GXK[g].any(-1)
        share = (trained[0][g] * best[g]).sum(-1)[present]
        uniform = 1 / problem.mask_GXK[g].sum(-1)[present]
        assert share.mean() > 0.9 and share.min() > 0.8
        assert share.mean() > uniform.mean() + 0.4


def test_a_group_with_the_opposite_reward_learns_the_opposite(trained):
    marked = planted_problem().features_GXKF[2, ..., 0] == 1
    assert (trained[0][2] * marked).sum(-1).mean() < 0.1


def test_progress_is_reported_per_iteration_and_the_reward_rises(trained):
    steps, rewards = zip(*trained[1], strict=True)
    assert steps == tuple(range(12))
    assert rewards[-1] > 0.9 > rewards[0] + 0.1


def test_the_reported_reward_is_the_mean_over_choices_made_not_over_absent_groups(ray_local):
    problem = planted_problem()
    paid = replace(problem, reward_GXK=np.full_like(problem.reward_GXK, 0.5))
    seen = []
    small = PPOSettings(questions_per_iteration=64)
    train_independent_ppo(paid, 2, settings=small, on_iteration=lambda i, r: seen.append(r))
    assert seen == [0.5, 0.5]


def test_the_process_is_left_as_it_was(ray_local):
    expected = [draw() for draw in seeded_draws()]
    draws = seeded_draws()
    train_independent_ppo(planted_problem(), 1, settings=PPOSettings(64, 64, 1))
    assert [draw() for draw in draws] == expected
    assert not torch.are_deterministic_algorithms_enabled()
    assert not [name for name in gym.registry if "rllib" in name]
    assert ray_local.is_initialized(), "a Ray that was running goes on running"


def test_in_a_ray_task_of_one_cpu_the_same_seed_gives_the_same_bits(trained, ray_local):
    problem = planted_problem()
    remote = ray_local.remote(num_cpus=1)(train_independent_ppo)
    policy = ray_local.get(remote.remote(problem, 12, 5, settings=QUICK), timeout=120)
    assert digest(policy) == digest(trained[0])


def test_without_ray_it_starts_its_own_says_nothing_and_ends_it(trained):
    """Also: names hash differently in this process, and the policy is still the same."""
    code = (
        "import ray\n"
        "from tests.trialign_ray.test_independent_ppo import *\n"
        "policy = train_independent_ppo(planted_problem(), 12, 5, settings=QUICK)\n"
        "assert not ray.is_initialized()\n"
        "print(digest(policy))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment | {"PYTHONHASHSEED": "7"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [digest(trained[0])]
    assert done.stderr == ""


def test_another_seed_gives_another_policy_and_every_seed_is_taken(trained, ray_local):
    small = PPOSettings(64, 64, 1)
    runs = [train_independent_ppo(planted_problem(), 1, s, settings=small) for s in (1, 2**62 + 2)]
    assert digest(runs[0]) != digest(runs[1])


def test_a_training_that_takes_too_long_is_ended_and_says_how_far_it_came(ray_local):
    with pytest.raises(WorkerError, match="did 1 of 50 iterations"):
        train_independent_ppo(
            planted_problem(), 50, settings=PPOSettings(64, 64, 1), timeout_s=0.001
        )
    with pytest.raises(ConfigError, match="0 iterations"):
        train_independent_ppo(planted_problem(), 0)


def test_the_network_scores_candidates_whatever_their_order_and_never_padding():
    from trialign_ray.actors.candidate_scorer import MASKED_LOGIT, CandidateScorer

    torch.manual_seed(0)
    space = gym.spaces.Box(-10, 10, (4 * 3,))
    scorer = CandidateScorer(
        observation_space=space,
        action_space=gym.spaces.Discrete(4),
        model_config={"num_features": 2, "hidden_units": 8},
    )
    seen_BKF = torch.randn(6, 4, 3)
    seen_BKF[..., 2] = torch.tensor([1.0, 1.0, 1.0, 0.0])
    order = torch.tensor([2, 3, 0, 1])
    logits = scorer.forward_inference({"obs": seen_BKF.flatten(1)})["action_dist_inputs"]
    moved = scorer.forward_inference({"obs": seen_BKF[:, order].flatten(1)})["action_dist_inputs"]
    torch.testing.assert_close(moved, logits[:, order])
    assert (logits[:, 3] == MASKED_LOGIT).all()
    values = scorer.compute_values({"obs": seen_BKF.flatten(1)})
    seen_BKF[:, 3, :2] = 5.0
    torch.testing.assert_close(scorer.compute_values({"obs": seen_BKF.flatten(1)}), values)


def tensors() -> CandidateTensors:
    """One group, two questions, two candidates; the second question has one, of unknown truth."""
    return CandidateTensors(
        reference_GXK=torch.tensor([[[0.75, 0.25], [1.0, 0.0]]]),
        truth_GXK=torch.tensor([[[1.0, 0.0], [NAN, NAN]]]),
        personalization_GXK=torch.tensor([[[0.5, NAN], [0.2, NAN]]]),
        answer_GXK=torch.zeros(1, 2, 2, dtype=torch.long),
        mask_GXK=torch.tensor([[[True, True], [True, False]]]),
        is_truth_X=torch.tensor([True, True]),
    )


def test_a_candidates_features_are_share_and_scores_each_with_a_flag_of_being_known():
    reward = torch.tensor([[[1.5, 0.0], [0.2, NAN]]])
    problem = choice_problem(tensors(), reward)
    # share, personalization, known, truth, known
    np.testing.assert_allclose(problem.features_GXKF[0, 0, 0], [0.75, 0.5, 1, 1, 1])
    np.testing.assert_allclose(problem.features_GXKF[0, 0, 1], [0.25, 0, 0, 0, 1])
    np.testing.assert_allclose(problem.features_GXKF[0, 1, 0], [1, 0.2, 1, 0, 0])
    np.testing.assert_allclose(problem.payoff_GXK[0], [[1.5, 0], [0.2, 0]])
    assert problem.groups == ("0",)
    assert choice_problem(tensors(), reward, ["amber"]).groups == ("amber",)


def test_a_reward_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match=r"expected that of the candidates, \(1, 2, 2\)"):
        choice_problem(tensors(), torch.zeros(1, 2, 3))
