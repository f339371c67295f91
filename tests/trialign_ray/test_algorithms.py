"""What every algorithm makes of a small log whose rewards are written down here."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.trialign_ray.planted_critic import BY_REWARD, LOG, NAN, planted_critic, same, solved
from trialign_ray.algorithms import ALGORITHMS, algorithm_by_name
from trialign_ray.config_sections import TargetsConfig
from trialign_ray.critic import CandidateTensors
from trialign_ray.errors import ConfigError
from trialign_ray.extraction import EXTRACTIONS

NAMES = [name for name in ALGORITHMS if name != "independent_ppo"]
CENTRAL = ["trialign", "consistency_only"]


@pytest.mark.parametrize("name", NAMES)
def test_targets_are_distributions_over_what_was_said(name):
    targets = solved(name)
    for tensor in (targets.policy_GXK, targets.value_GXK, targets.margin_GXK):
        assert tensor.shape == LOG.mask_GXK.shape
    assert not bool(targets.policy_GXK[~LOG.mask_GXK].any())
    assert bool((targets.policy_GXK >= 0).all())
    sums = targets.policy_GXK.sum(-1)
    assert bool(((sums - 1).abs().lt(1e-5) | (sums == 0)).all())
    assert not bool(sums[1, 2].any()), "who was absent learns nothing"
    known = ~targets.value_GXK.isnan()
    assert not bool((known & ~LOG.mask_GXK).any())
    assert not bool(targets.value_GXK[known].isinf().any())


@pytest.mark.parametrize("name", NAMES)
def test_algorithms_do_not_write_into_the_log(name):
    before = {k: v.clone() for k, v in LOG.__dict__.items()}
    solved(name)
    assert all(torch.equal(v.nan_to_num(7), before[k].nan_to_num(7)) for k, v in vars(LOG).items())


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_groups_does_not_matter(name):
    turned = CandidateTensors(
        **{k: v if k == "is_truth_X" else v.flip(0) for k, v in vars(LOG).items()}
    )
    one, other = solved(name), solved(name, turned)
    tolerance = 1e-2 if name in CENTRAL else 1e-6  # the centre solves to its own tolerance
    assert torch.allclose(one.policy_GXK, other.policy_GXK.flip(0), atol=tolerance)
    assert same(one.margin_GXK, other.margin_GXK.flip(0))


def test_sft_imitates_the_log_and_knows_no_return():
    targets = solved("sft")
    assert same(targets.policy_GXK, LOG.reference_GXK)
    assert bool(targets.value_GXK.isnan().all()) and not bool(targets.margin_GXK.any())


def test_truth_sft_keeps_verified_truths_and_tastes_alone():
    policy = solved("truth_sft").policy_GXK
    assert policy[0].tolist() == [[0, 1, 0], [0, 0, 0], pytest.approx([0.7, 0.3, 0])]
    assert policy[1].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("name", BY_REWARD)
def test_by_reward_weighs_what_is_known_and_what_is_not_ranks_nothing(name):
    # (w_T T + w_P P) / (w_T + w_P): (3 * 0 + 1) / 4, (3 + .2) / 4, .4 / 4; P / 4 on the hidden fact
    # and the taste, whose truth is unknown of all answers; nothing of what nobody scored.
    targets = solved(name, truth_weight=3.0, personalization_weight=1.0)
    expected = torch.tensor(
        [
            [[0.25, 0.8, 0.1], [0.25, 0.0, NAN], [0.05, 0.25, NAN]],
            [[(3 + 0.5) / 4, NAN, NAN], [NAN, 0.125, NAN], [NAN, NAN, NAN]],
        ]
    )
    assert same(targets.value_GXK, expected)
    assert same(targets.policy_GXK, LOG.reference_GXK) and not bool(targets.margin_GXK.any())


def test_a_reward_without_weight_counts_as_unknown_not_as_zero():
    preference = LOG.personalization_GXK.clone()
    preference[0, 0, 0] = NAN  # of this one the truth alone is known
    unscored = replace(LOG, personalization_GXK=preference)
    assert same(solved("dpo", unscored, truth_weight=0.0).value_GXK, preference)
    assert bool(solved("dpo", unscored).value_GXK[0, 0, 0].isnan()), "the others have a preference"
    value = solved("dpo", personalization_weight=0.0).value_GXK
    assert same(value, LOG.truth_GXK)


def test_modpo_ranks_by_truth_with_personalization_as_margin():
    # w_P / w_T = 1/2. Where no truth is visible personalization ranks, and there is no margin.
    targets = solved("modpo", truth_weight=2.0, personalization_weight=1.0)
    expected = torch.tensor(
        [
            [[0.0, 1.0, 0.0], [1.0, 0.0, NAN], [0.2, 1.0, NAN]],
            [[1.0, NAN, NAN], [NAN, 0.5, NAN], [NAN, NAN, NAN]],
        ]
    )
    margin = torch.zeros(2, 3, 3)
    margin[:, 0] = torch.tensor([[0.5, 0.1, 0.2], [0.25, NAN, NAN]])
    assert same(targets.value_GXK, expected) and same(targets.margin_GXK, margin)


def disagreement(policy_GXK: Tensor, x: int) -> float:
    """Half the L1 distance of the groups' answer distributions (question 0 has three answers)."""
    answers = torch.zeros(2, 3, dtype=torch.float64)
    for g in range(2):
        for k in range(3):
            if bool(LOG.mask_GXK[g, x, k]):
                answers[g, LOG.answer_GXK[g, x, k]] += policy_GXK[g, x, k].double()
    return float((answers[0] - answers[1]).abs().sum()) / 2


def test_consistency_only_makes_groups_agree_on_facts_and_leaves_tastes_alone():
    apart = disagreement(LOG.reference_GXK, 1)
    ladder = [
        disagreement(solved("consistency_only", penalty_weight=w).policy_GXK, 1)
        for w in (0.0, 0.1, 1.0, 10.0)
    ]
    assert ladder[0] == pytest.approx(apart, abs=1e-3) and apart == pytest.approx(0.4)
    assert ladder == sorted(ladder, reverse=True) and ladder[-1] < 0.01
    policy = solved("consistency_only", penalty_weight=10.0).policy_GXK
    assert same(policy[0, 2], LOG.reference_GXK[0, 2])


def test_consistency_only_sees_neither_truth_nor_preference():
    blind = replace(
        LOG, truth_GXK=1 - LOG.truth_GXK, personalization_GXK=LOG.personalization_GXK * 0
    )
    one, other = solved("consistency_only"), solved("consistency_only", blind)
    assert torch.equal(one.policy_GXK, other.policy_GXK)


@pytest.mark.parametrize("name", CENTRAL)
@pytest.mark.parametrize("players", ["groups", "group_objectives"])
def test_central_targets_rank_by_log_q_over_mu(name, players):
    targets = solved(name, players=players)
    mask = LOG.mask_GXK
    ratio = targets.policy_GXK[mask] / LOG.reference_GXK[mask]
    assert same(targets.value_GXK[mask], ratio.log())
    assert bool(targets.value_GXK[~mask].isnan().all())
    assert targets.solution is not None
    assert torch.equal(targets.solution.policy_GXK, targets.policy_GXK)


def test_trialign_raises_verified_truth_and_liked_tastes():
    # The verified fact: group 0 said the truth three times in ten. The taste: it likes candidate 1.
    policy = solved("trialign").policy_GXK
    assert float(policy[0, 0, 1]) > 0.9 and float(policy[0, 2, 1]) > 0.5


def test_trialign_without_penalty_is_the_tilted_log_of_each_group():
    # players = groups, p = 1 (utilitarian), lambda = 0, equal weights: ALGORITHM section 8:
    # q_g is exactly mu * exp(c_g Q / (beta w_g)) with c_g = w_g, so mu * exp(Q / beta).
    targets = solved(
        "trialign",
        players="groups",
        welfare="power_mean",
        welfare_exponent=1.0,
        penalty_weight=0.0,
        kl_weight=0.5,
        tolerance=1e-9,
    )
    value = torch.tensor([0.5, 0.6, 0.2], dtype=torch.float64)  # (T + P) / 2 on the verified fact
    weight = LOG.reference_GXK[0, 0].double() * (value / 0.5).exp()
    assert same(targets.policy_GXK[0, 0], weight / weight.sum())


@pytest.mark.parametrize("name", BY_REWARD)
def test_a_group_of_its_own_never_sees_what_a_truth_head_believes(name):
    # The hidden fact q1: its truth is not verified, so personalization alone ranks, and nobody's
    # answers are lent. The verified one has the log's gold.
    critic, algorithm = planted_critic(), algorithm_by_name(name)
    problem = critic.problem_for(algorithm)
    assert not algorithm.central and bool(problem.tensors.truth_GXK[:, 1].isnan().all())
    assert problem.tensors.mask_GXK.sum(-1).tolist() == [[2, 2, 1], [1, 2, 0]]
    value = algorithm.solve(problem).value_GXK
    assert same(value[0], torch.tensor([[0.5, 0.5], [0.5, 0.0], [0.5, NAN]]))
    assert same(value[1], torch.tensor([[0.75, NAN], [0.25, NAN], [NAN, NAN]]))


def test_the_central_algorithms_see_estimates_and_borrowed_answers():
    critic = planted_critic()
    problem = critic.problem_for(algorithm_by_name("trialign"))
    truth, mask = problem.tensors.truth_GXK, problem.tensors.mask_GXK
    # Plain vote on the hidden fact: a says myth 3/4, b true 3/4; a half each.
    assert truth[:, 1].tolist() == [pytest.approx([0.5, 0.5])] * 2
    assert mask.sum(-1).tolist() == [[2, 2, 1], [2, 2, 0]], "b borrows the myth of q0"
    assert truth[1, 0].tolist() == [1.0, 0.0], "with its visible truth"
    assert {name for name, a in ALGORITHMS.items() if a.central} == set(CENTRAL)


def test_without_borrowing_the_central_algorithms_see_what_each_group_said():
    critic = planted_critic(TargetsConfig(borrow_peers=False))
    tensors = critic.problem_for(algorithm_by_name("trialign")).tensors
    assert tensors.mask_GXK.sum(-1).tolist() == [[2, 2, 1], [1, 2, 0]]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithms_are_made_of_parts_that_exist(name):
    algorithm = ALGORITHMS[name]
    assert algorithm.extraction is None or algorithm.extraction in EXTRACTIONS
    assert algorithm.sharing in ("own", "pooled", "group_robust", "worst_group")
    assert algorithm.summary and algorithm_by_name(name) is algorithm


def test_what_sets_the_baselines_apart_is_loss_and_sharing():
    parts = {n: (a.extraction, a.sharing) for n, a in ALGORITHMS.items()}
    assert parts["dpo"] == ("dpo", "own") and parts["pooled_dpo"] == ("dpo", "pooled")
    assert parts["gr_dpo"] == ("dpo", "group_robust")
    assert parts["group_dro"] == ("awr", "group_robust") and parts["maxmin"] == (
        "awr",
        "worst_group",
    )
    assert [parts[n] for n in ("ipo", "kto", "dro", "grpo", "awr")] == [
        (n, "own") for n in ("ipo", "kto", "dro", "grpo", "awr")
    ]


def test_an_unknown_name_lists_the_names_there_are():
    with pytest.raises(ConfigError, match=r"'ppo'; expected one of awr, consistency_only, dpo"):
        algorithm_by_name("ppo")
