"""Several groups on one adapter: whose loss counts how much."""

import math

import pytest
import torch
from torch import Tensor

from trialign_ray.extraction import CandidateBatch
from trialign_ray.group_mixer import RETURN_MEMORY, ROBUST_STEP, GroupMixer

GROUPS = ("a", "b")
ROWS = ["a", "b", "b"]
NAN = math.nan


def batch(probability_of_good: tuple[float, ...], value: tuple[float, ...] = (1.0, 0.0)):
    """A row for each probability that the policy gives to the first of two candidates."""
    good_B = torch.tensor(probability_of_good)
    two = torch.ones(len(good_B), 2)
    return CandidateBatch(
        logprob_BK=torch.stack([good_B, 1 - good_B], -1).log(),
        length_BK=two,
        target_BK=two / 2,
        reference_BK=two.log(),
        prior_BK=two,
        value_BK=torch.tensor(value).expand(len(good_B), 2),
        margin_BK=0 * two,
        mask_BK=two.bool(),
    )


SAME = batch((0.5, 0.5, 0.5))


def slopes(mixer: GroupMixer, loss: Tensor, of: CandidateBatch = SAME, rows=ROWS) -> list[float]:
    """d loss / d row's loss: the weight of every row."""
    loss = loss.clone().requires_grad_()
    mixer.mix(loss, of, rows).backward()
    assert loss.grad is not None
    return loss.grad.tolist()


def test_pooled_is_the_mean_of_the_groups_means():
    # (1 + (2 + 6) / 2) / 2 = 2.5, though the mean over rows is 3
    mixer = GroupMixer("pooled", GROUPS)
    assert float(mixer.mix(torch.tensor([1.0, 2.0, 6.0]), SAME, ROWS)) == 2.5
    assert slopes(mixer, torch.tensor([1.0, 2.0, 6.0])) == [0.5, 0.25, 0.25]


def test_given_weights_stay_and_are_normalised():
    # (3 * 1 + 1 * 4) / 4 = 1.75; "c" of weight 0 is not served.
    mixer = GroupMixer("pooled", GROUPS, {"b": 1.0, "a": 3.0})
    for _ in range(2):
        assert float(mixer.mix(torch.tensor([1.0, 2.0, 6.0]), SAME, ROWS)) == 1.75
    three = GroupMixer("pooled", ("a", "b", "c"), {"a": 1.0, "b": 1.0, "c": 0.0})
    assert slopes(three, torch.ones(3), rows=["a", "b", "c"]) == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("sharing", ["own", "pooled", "group_robust", "worst_group"])
def test_one_group_is_its_mean_under_every_rule(sharing):
    mixer = GroupMixer(sharing, ("a",))
    assert float(mixer.mix(torch.tensor([1.0, 3.0]), batch((0.5, 0.5)), ["a", "a"])) == 2


def test_robust_weights_after_two_updates():
    # log w = eta (L^1 + L^2), normalised: groups' losses (1, 4) then (3, 0): w = softmax(.4, .4);
    # after the first alone softmax(.1, .4) = (1, e^.3) / (1 + e^.3).
    mixer = GroupMixer("group_robust", GROUPS)
    first = mixer.mix(torch.tensor([1.0, 2.0, 6.0]), SAME, ROWS)
    worse = 1 / (1 + math.exp(-3 * ROBUST_STEP))
    assert mixer.state()["weight"] == pytest.approx([1 - worse, worse], abs=1e-9)
    assert worse == pytest.approx(0.574443, abs=1e-6)
    assert float(first) == pytest.approx((1 - worse) * 1 + worse * 4, abs=1e-6)
    mixer.mix(torch.tensor([3.0, 0.0, 0.0]), SAME, ROWS)
    assert mixer.state()["weight"] == pytest.approx([0.5, 0.5], abs=1e-9)


def test_robust_weight_keeps_rising_for_the_group_that_stays_worse():
    mixer, weights = GroupMixer("group_robust", GROUPS), []
    for _ in range(30):
        mixer.mix(torch.tensor([0.1, 1.0, 1.0]), SAME, ROWS)
        weights.append(mixer.state()["weight"][1])
    assert weights == sorted(weights) and weights[0] > 0.5 and weights[-1] > 0.9


def test_robust_weights_are_data_and_no_path_of_the_gradient():
    # The slope of w_b L_b in L_b is w_b alone, not w_b + L_b dw_b / dL_b.
    mixer = GroupMixer("group_robust", GROUPS)
    found = slopes(mixer, torch.tensor([1.0, 2.0, 6.0]))
    weight = mixer.state()["weight"]
    assert found == pytest.approx([weight[0], weight[1] / 2, weight[1] / 2])


def test_the_worst_group_is_the_one_of_least_return_not_of_largest_loss():
    # Returns under the policy: a .8, b (.1 + .3) / 2 = .2, so b has all weight, at any loss.
    mixer = GroupMixer("worst_group", GROUPS)
    assert slopes(mixer, torch.tensor([9.0, 1.0, 1.0]), batch((0.8, 0.1, 0.3))) == [0, 0.5, 0.5]
    assert mixer.state()["return"] == pytest.approx([0.8, 0.2])


def test_the_running_return_remembers():
    # b starts at .2, then gets 1: .9 * .2 + .1 * 1 = .28, still below a's .8 -> .74.
    mixer = GroupMixer("worst_group", GROUPS)
    loss = torch.ones(3)
    mixer.mix(loss, batch((0.8, 0.1, 0.3)), ROWS)
    mixer.mix(loss, batch((0.2, 1.0, 1.0)), ROWS)
    kept = RETURN_MEMORY
    expected = [kept * 0.8 + (1 - kept) * 0.2, kept * 0.2 + (1 - kept) * 1.0]
    assert mixer.state() == {"weight": [0.0, 1.0], "return": pytest.approx(expected, abs=1e-6)}


def test_the_other_group_takes_over_once_it_is_worse():
    mixer, turned = GroupMixer("worst_group", GROUPS), []
    for step in range(20):
        mixer.mix(torch.ones(3), batch((0.8, 0.1, 0.3) if step == 0 else (0.0, 1.0, 1.0)), ROWS)
        turned.append(mixer.state()["weight"].index(1.0))
    assert turned[0] == 1 and turned[-1] == 0


def test_returns_are_taken_over_known_candidates_without_gradient():
    logprob = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]]).log().requires_grad_()
    half_known = batch((0.9, 0.5, 0.5), value=(NAN, 0.4))
    of = CandidateBatch(**{**half_known.__dict__, "logprob_BK": logprob})
    mixer = GroupMixer("worst_group", GROUPS)
    loss = torch.ones(3, requires_grad=True)
    mixer.mix(loss, of, ROWS).backward()
    assert mixer.state()["return"] == pytest.approx([0.4, 0.4])
    assert logprob.grad is None


STREAM = [
    (torch.tensor([1.0, 2.0, 6.0]), batch((0.8, 0.1, 0.3))),
    (torch.tensor([5.0, 1.0, 0.0]), batch((0.1, 0.9, 0.3))),
    (torch.tensor([2.0, 2.0, 3.0]), batch((0.2, 0.7, 0.8))),
    (torch.tensor([0.5, 4.0, 3.0]), batch((0.0, 0.7, 0.9))),
]


@pytest.mark.parametrize("sharing", ["pooled", "group_robust", "worst_group"])
@pytest.mark.parametrize("interrupted_at", [0, 1, 3])
def test_a_restored_mixer_goes_on_as_if_never_interrupted(sharing, interrupted_at):
    whole = GroupMixer(sharing, GROUPS)
    expected = [float(whole.mix(loss, of, ROWS)) for loss, of in STREAM]
    first = GroupMixer(sharing, GROUPS)
    for loss, of in STREAM[:interrupted_at]:
        first.mix(loss, of, ROWS)
    second = GroupMixer(sharing, GROUPS)
    second.mix(torch.tensor([0.0, 9.0, 9.0]), batch((0.0, 1.0, 1.0)), ROWS)  # must be forgotten
    second.restore(first.state())
    found = [float(second.mix(loss, of, ROWS)) for loss, of in STREAM[interrupted_at:]]
    assert found == expected[interrupted_at:]
    assert second.state() == whole.state()


@pytest.mark.parametrize("sharing", ["pooled", "group_robust", "worst_group"])
def test_the_order_of_groups_and_of_rows_does_not_matter(sharing):
    plain, turned = GroupMixer(sharing, GROUPS), GroupMixer(sharing, GROUPS[::-1])
    order = torch.tensor([2, 0, 1])
    for loss, of in STREAM:
        moved = CandidateBatch(**{k: v[order] for k, v in of.__dict__.items()})
        one = plain.mix(loss, of, ROWS)
        other = turned.mix(loss[order], moved, [ROWS[i] for i in order.tolist()])
        assert float(one) == pytest.approx(float(other), abs=1e-6)
    assert plain.state()["weight"] == pytest.approx(turned.state()["weight"][::-1], abs=1e-6)
