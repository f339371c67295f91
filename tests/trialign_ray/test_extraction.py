"""Every extraction on a tabular model: a free log-probability for each candidate."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from trialign_ray.config_sections import CloneConfig
from trialign_ray.errors import ConfigError
from trialign_ray.extraction import (
    CLIP,
    EXTRACTIONS,
    PAIR_MARGIN,
    CandidateBatch,
    extraction_by_name,
    pair_mask,
)

CONFIG = CloneConfig(pair_beta=0.1, temperature=0.1)
NAN = math.nan
BEST = 2
LEARNS_FROM_RETURNS = [name for name in EXTRACTIONS if name not in ("clone", "listwise")]


def example(**changes: Tensor) -> CandidateBatch:
    """Two questions: of four candidates, all known, and of two and padding. The best is number 2 of
    the first and number 0 of the second."""
    batch = CandidateBatch(
        logprob_BK=torch.tensor([[-4.0, -3.0, -5.0, -6.0], [-2.0, -2.5, 0.0, 0.0]]),
        length_BK=torch.tensor([[4.0, 2.0, 3.0, 5.0], [2.0, 2.0, 0.0, 0.0]]),
        target_BK=torch.tensor([[0.1, 0.1, 0.7, 0.1], [0.8, 0.2, 0.0, 0.0]]),
        reference_BK=torch.tensor([[-4.0, -3.0, -5.0, -6.0], [-2.0, -2.5, 0.0, 0.0]]),
        prior_BK=torch.tensor([[2.5, 1.5, 0.5, 1.5], [1.5, 2.5, 0.0, 0.0]]),
        value_BK=torch.tensor([[0.0, 0.5, 1.0, 0.2], [0.9, 0.1, NAN, NAN]]),
        margin_BK=torch.zeros(2, 4),
        mask_BK=torch.tensor([[True] * 4, [True, True, False, False]]),
    )
    return replace(batch, **changes)


def loss_and_gradient(name: str, batch: CandidateBatch) -> tuple[Tensor, Tensor]:
    logprob = batch.logprob_BK.clone().requires_grad_()
    loss_B = extraction_by_name(name)(replace(batch, logprob_BK=logprob), CONFIG)
    (gradient,) = torch.autograd.grad(loss_B.sum(), logprob)
    return loss_B.detach(), gradient


def reordered(batch: CandidateBatch, order: Tensor) -> CandidateBatch:
    return CandidateBatch(**{f.name: getattr(batch, f.name)[:, order] for f in fields(batch)})


def trained(name: str, batch: CandidateBatch) -> Tensor:
    """Probabilities, after 200 steps on free logits, of each question's candidates and "else"."""
    logit_BK = batch.reference_BK.clone().requires_grad_()
    other_B1 = torch.zeros(len(logit_BK), 1)  # all that is no candidate

    def logprob_BK() -> Tensor:
        masked = logit_BK.masked_fill(~batch.mask_BK, -math.inf)
        return (
            torch.cat([masked, other_B1], 1)
            .log_softmax(-1)[:, :-1]
            .masked_fill(~batch.mask_BK, 0.0)
        )

    reference = logprob_BK().detach()
    optimizer = torch.optim.SGD([logit_BK], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        now = replace(batch, logprob_BK=logprob_BK(), reference_BK=reference)
        extraction_by_name(name)(now, CONFIG).mean().backward()
        optimizer.step()
    return (logprob_BK() - reference).detach()


@pytest.mark.parametrize("name", EXTRACTIONS)
def test_descent_raises_the_best_answer_over_the_others(name):
    log_ratio = trained(name, example())
    assert int(log_ratio[0].argmax()) == BEST and int(log_ratio[1, :2].argmax()) == 0
    assert float(log_ratio[0, BEST]) > 0.05 and float(log_ratio[1, 0]) > 0.05
    assert float(log_ratio[0, BEST] - log_ratio[0, 0]) > 0.1
    assert float(log_ratio[1, 0] - log_ratio[1, 1]) > 0.1


@pytest.mark.parametrize("name", EXTRACTIONS)
@pytest.mark.parametrize(
    "value",
    [
        [[NAN, 0.5, 1.0, NAN], [NAN, NAN, NAN, NAN]],  # some, and none at all
        [[0.7, 0.7, 0.7, 0.7], [0.1, 0.1, NAN, NAN]],  # all alike
        [[NAN, NAN, 0.3, NAN], [NAN, 1.0, NAN, NAN]],  # a single one
    ],
)
def test_unknown_returns_never_make_a_loss_or_a_gradient_that_is_no_number(name, value):
    loss, gradient = loss_and_gradient(name, example(value_BK=torch.tensor(value)))
    assert bool(torch.isfinite(loss).all()) and bool(torch.isfinite(gradient).all())
    assert not bool(gradient[1, 2:].any()), "padding has no gradient"


@pytest.mark.parametrize("name", LEARNS_FROM_RETURNS)
def test_without_any_return_there_is_nothing_to_learn(name):
    loss, gradient = loss_and_gradient(name, example(value_BK=torch.full((2, 4), NAN)))
    assert loss.tolist() == [0, 0] and not bool(gradient.any())


@pytest.mark.parametrize("name", LEARNS_FROM_RETURNS)
def test_an_answer_of_unknown_return_is_left_alone(name):
    value = torch.tensor([[0.0, NAN, 1.0, 0.2], [0.9, 0.1, NAN, NAN]])
    _, gradient = loss_and_gradient(name, example(value_BK=value))
    assert float(gradient[0, 1]) == 0 and float(gradient[0, BEST]) != 0


@pytest.mark.parametrize("name", ["dpo", "ipo", "kto", "grpo"])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, 1.0])
def test_answers_of_equal_return_are_neither_raised_nor_lowered(name, value):
    batch = example(value_BK=torch.where(example().mask_BK, value, NAN))
    loss, gradient = loss_and_gradient(name, batch)
    assert loss.tolist() == [0, 0] and not bool(gradient.any())


@pytest.mark.parametrize("name", EXTRACTIONS)
def test_a_question_with_one_candidate_is_finite(name):
    one = torch.tensor([[0.3]])
    batch = CandidateBatch(
        logprob_BK=-one,
        length_BK=torch.ones(1, 1),
        target_BK=torch.ones(1, 1),
        reference_BK=-2 * one,
        prior_BK=torch.ones(1, 1),
        value_BK=one,
        margin_BK=torch.zeros(1, 1),
        mask_BK=torch.ones(1, 1, dtype=torch.bool),
    )
    loss, gradient = loss_and_gradient(name, batch)
    assert bool(torch.isfinite(loss).all()) and bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("name", EXTRACTIONS)
def test_the_order_of_candidates_does_not_matter_even_where_the_best_are_tied(name):
    batch = example(
        logprob_BK=torch.tensor([[-4.4, -3.1, -5.0, -5.5], [-2.0, -2.9, 0.0, 0.0]]),
        value_BK=torch.tensor([[0.0, 1.0, 1.0, 0.2], [0.9, 0.1, NAN, NAN]]),
        margin_BK=torch.tensor([[0.1, 0.3, 0.0, 0.2], [0.0, 0.5, 0.0, 0.0]]),
    )
    order = torch.tensor([3, 2, 0, 1])
    loss, gradient = loss_and_gradient(name, batch)
    moved_loss, moved_gradient = loss_and_gradient(name, reordered(batch, order))
    assert torch.allclose(loss, moved_loss, atol=1e-6)
    assert torch.allclose(gradient[:, order], moved_gradient, atol=1e-6)


@pytest.mark.parametrize("name", EXTRACTIONS)
def test_what_was_stored_with_the_log_gets_no_gradient(name):
    names = ("target_BK", "reference_BK", "prior_BK", "value_BK", "margin_BK", "length_BK")
    batch = example(logprob_BK=example().logprob_BK.requires_grad_())
    extraction_by_name(name)(batch, CONFIG).sum().backward()
    assert batch.logprob_BK.grad is not None
    assert all(getattr(batch, n).grad is None for n in names)
    assert not any(getattr(batch, n).requires_grad for n in names)


@pytest.mark.parametrize("name", [n for n in EXTRACTIONS if n not in ("clone", "awr")])
def test_a_common_shift_of_model_and_reference_changes_nothing(name):
    shift = torch.where(example().mask_BK, 3.0, 0.0)
    moved = example(logprob_BK=example().logprob_BK - 0.5 * torch.arange(4.0))
    both = replace(
        moved, logprob_BK=moved.logprob_BK + shift, reference_BK=moved.reference_BK + shift
    )
    one, other = loss_and_gradient(name, moved)[0], loss_and_gradient(name, both)[0]
    assert torch.allclose(one, other, atol=1e-6)


def test_pairs_are_the_best_against_all_that_are_clearly_worse():
    known = torch.tensor([True, True, True, False])
    value = torch.tensor([1.0 - 0.9 * PAIR_MARGIN, 1.0, 0.2, NAN])
    # 1 is best; 0 is too near to be worse; 3 is not known.
    assert pair_mask(value, known).nonzero().tolist() == [[1, 2]]
    # Both best ones are preferred to both others, not to each other.
    tied = torch.tensor([1.0, 0.1, 1.0, 0.2])
    everyone = torch.ones(4, dtype=torch.bool)
    assert pair_mask(tied, everyone).nonzero().tolist() == [[0, 1], [0, 3], [2, 1], [2, 3]]


def test_without_a_difference_there_is_no_pair():
    for value, known in (
        ([0.5, 0.5], [True, True]),
        ([1.0, 0.0], [True, False]),
        ([NAN, NAN], [False, False]),
        ([1.0], [True]),
    ):
        assert not bool(pair_mask(torch.tensor(value), torch.tensor(known)).any())


def test_pairs_of_a_batch_are_those_of_its_questions():
    batch = example()
    pairs = pair_mask(batch.known_value_BK, batch.known_BK)
    for b in range(2):
        alone = pair_mask(batch.known_value_BK[b], batch.known_BK[b])
        assert torch.equal(pairs[b], alone)
    assert pairs.sum((-2, -1)).tolist() == [3, 1]


def test_a_pair_whose_second_objective_is_not_known_has_no_margin():
    known = example(margin_BK=torch.tensor([[0.4, 0.1, 0.9, 0.0], [0.3, 0.1, 0.0, 0.0]]))
    unknown = replace(known, margin_BK=torch.tensor([[NAN] * 4, [NAN, 0.1, 0.0, 0.0]]))
    loss, gradient = loss_and_gradient("dpo", unknown)
    plain, plain_gradient = loss_and_gradient("dpo", example())
    assert torch.equal(loss, plain) and torch.equal(gradient, plain_gradient)
    # First question: margins .5, .8, .9 over the three others: mean of log(1 + e^margin).
    by_hand = sum(math.log(1 + math.exp(m)) for m in (0.5, 0.8, 0.9)) / 3
    assert float(loss_and_gradient("dpo", known)[0][0]) == pytest.approx(by_hand)


def test_awr_weighs_by_advantage_over_the_logs_mean():
    # Second question: mu (3/8, 5/8), mean return .4, advantages (.5, -.3), temperature .1: weights
    # (3/8 min(e^5, 20), 5/8 e^-3), times minus mean log-likelihoods (1, 1.25).
    loss, _ = loss_and_gradient("awr", example())
    by_hand = 3 / 8 * 20 * 1.0 + 5 / 8 * math.exp(-3) * 1.25
    assert float(loss[1]) == pytest.approx(by_hand, rel=1e-5)


def test_kto_takes_its_reference_point_from_the_candidates():
    # Model and reference agree on everything but a constant: the KL is 0 and log-ratios are 1.
    # Second question: (1 - sigmoid(.1) + 1 - sigmoid(-.1)) / 2 = 1/2.
    batch = example(logprob_BK=example().logprob_BK + torch.where(example().mask_BK, 1.0, 0.0))
    loss, gradient = loss_and_gradient("kto", batch)
    assert float(loss[1]) == pytest.approx(0.5, abs=1e-6)
    assert float(gradient[1, 0]) < 0 < float(gradient[1, 1])


def test_grpo_stops_at_the_edge_of_its_trust_region():
    far = math.log(1 + CLIP) + 0.01
    length = example().length_BK
    ratio = torch.tensor([[0.0, 0.0, far, 0.0], [0.0, 0.0, 0.0, 0.0]]) * length
    _, gradient = loss_and_gradient("grpo", example(logprob_BK=example().reference_BK + ratio))
    assert float(gradient[0, BEST]) == 0 and float(gradient[0, 0]) > 0 > float(gradient[1, 0])


def test_without_a_name_the_default_is_cloning():
    assert extraction_by_name(None) is EXTRACTIONS["clone"]


def test_an_unknown_name_lists_the_names_there_are():
    with pytest.raises(ConfigError, match=r"'ppo'; expected one of awr, clone, dpo, dro, grpo"):
        extraction_by_name("ppo")
