"""Logs in which there is little to learn, or nothing: what every algorithm makes of them."""

import math
from dataclasses import replace

import pytest
import torch

from tests.trialign_ray.planted_critic import BY_REWARD, LOG, NAN, same, solved
from trialign_ray.algorithms import ALGORITHMS
from trialign_ray.critic import CandidateTensors
from trialign_ray.errors import DataError

NAMES = [name for name in ALGORITHMS if name != "independent_ppo"]


@pytest.mark.parametrize("name", NAMES)
def test_one_candidate_each_leaves_nothing_to_choose(name):
    first = {k: v if k == "is_truth_X" else v[..., :1] for k, v in vars(LOG).items()}
    one = CandidateTensors(**{**first, "reference_GXK": first["mask_GXK"].float()})
    policy = solved(name, one).policy_GXK
    kept = policy.sum(-1) > 0
    assert bool((policy[kept] - 1).abs().max() < 1e-6) and not bool(kept[1, 2])


@pytest.mark.parametrize("name", NAMES)
def test_a_group_that_never_spoke_gets_no_targets_and_harms_nobody(name):
    silent = CandidateTensors(
        reference_GXK=torch.stack([LOG.reference_GXK[0], torch.zeros(3, 3)]),
        truth_GXK=torch.stack([LOG.truth_GXK[0], torch.full((3, 3), NAN)]),
        personalization_GXK=torch.stack([LOG.personalization_GXK[0], torch.full((3, 3), NAN)]),
        answer_GXK=torch.stack([LOG.answer_GXK[0], torch.full((3, 3), -1)]),
        mask_GXK=torch.stack([LOG.mask_GXK[0], torch.zeros(3, 3, dtype=torch.bool)]),
        is_truth_X=LOG.is_truth_X,
    )
    alone = CandidateTensors(**{k: v if k == "is_truth_X" else v[:1] for k, v in vars(LOG).items()})
    policy = solved(name, silent, tolerance=1e-7).policy_GXK
    assert not bool(policy[1].any())
    assert torch.allclose(policy[0], solved(name, alone, tolerance=1e-7).policy_GXK[0], atol=1e-3)


@pytest.mark.parametrize("name", ["trialign", *BY_REWARD, "modpo"])
def test_equal_rewards_teach_nothing_beyond_the_log(name):
    equal = replace(
        LOG,
        truth_GXK=torch.where(LOG.truth_GXK.isnan(), NAN, 0.7),
        personalization_GXK=torch.where(LOG.mask_GXK, 0.7, NAN),
    )
    targets = solved(name, equal, penalty_weight=0.0, tolerance=1e-8)
    assert torch.allclose(targets.policy_GXK.float(), LOG.reference_GXK, atol=1e-4)
    spread = targets.value_GXK.nan_to_num(-math.inf).amax(-1) - targets.value_GXK.nan_to_num(
        math.inf
    ).amin(-1)
    assert float(spread[LOG.mask_GXK.any(-1)].max()) < 1e-3


def nothing_known() -> CandidateTensors:
    unknown = torch.full_like(LOG.truth_GXK, NAN)
    return replace(LOG, truth_GXK=unknown, personalization_GXK=unknown)


@pytest.mark.parametrize("name", [*BY_REWARD, "modpo", "sft"])
def test_without_any_reward_no_return_is_known(name):
    targets = solved(name, nothing_known())
    assert bool(targets.value_GXK.isnan().all()) and same(targets.policy_GXK, LOG.reference_GXK)


def test_without_any_reward_filtered_imitation_has_tastes_alone():
    policy = solved("truth_sft", nothing_known()).policy_GXK
    assert policy.sum(-1).tolist() == [[0, 0, 1], [0, 0, 0]]


def test_the_centre_refuses_a_log_without_any_reward():
    with pytest.raises(DataError, match="known"):
        solved("trialign", nothing_known())
