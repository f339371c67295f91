"""Truth heads behind one interface: what each believes, and what none of them may look at."""

from dataclasses import replace

import pytest
import torch

from tests.trialign_ray.planted_worlds import SETTINGS, TRUE, believe, planted, scores, view
from trialign_ray.candidates import JointQuestion
from trialign_ray.critic import candidate_tensors, known_objectives, objective_values
from trialign_ray.errors import ConfigError
from trialign_ray.truth_heads import (
    HIDDEN,
    TRUTH_HEADS,
    beliefs_by_head,
    gather_evidence,
    truth_head_by_name,
)

GROUPS = ("good", "bad", "worse")
METHODS = ("joint", "dawid_skene", "majority", "labels")
RATES = {"best": 0.03, "one": 0.1, "two": 0.1, "three": 0.1}


def questions(num, num_labelled):
    """Group "good" is right; "bad" and "worse" share a myth, so a vote is wrong every time."""
    made = []
    for i in range(num):
        visible = i < num_labelled
        truths = (1.0, 0.0, 0.0) if visible else (None, None, None)
        said = zip(GROUPS, (TRUE, "myth", "myth"), truths, strict=True)
        views = {g: view(z, t) for g, z, t in said}
        made.append(JointQuestion(f"q{i:03}", "truth", visible, ("myth", TRUE), views))
    return made


def same(first, second, atol=0.0):
    pairs = ((first.mean_XZ, second.mean_XZ), (first.std_XZ, second.std_XZ))
    return all(torch.allclose(a, b, rtol=0, atol=atol, equal_nan=True) for a, b in pairs)


def test_an_unknown_head_is_refused_with_the_names_there_are():
    message = (
        r"critic.truth_head is 'x'; expected one of dawid_skene, joint, labels, majority, oracle"
    )
    with pytest.raises(ConfigError, match=message):
        truth_head_by_name("x")


def test_joint_believes_a_reliable_minority_where_a_vote_fails_every_time():
    _, joint = believe("joint", questions(60, 20), GROUPS)
    assert float(joint.mean_XZ[20:, 1].min()) > 0.9 and joint.num_labels == 20
    _, vote = believe("majority", questions(60, 20), GROUPS)
    # one of three groups, at both turns
    assert vote.mean_XZ[0].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_the_vote_counts_first_and_second_thoughts_alike():
    """One says p and stays; one says p, then r; one is away: shares p (2 + 1) / 4, r 1 / 4."""
    views = {"good": view("p"), "bad": view("p", later="r")}
    question = JointQuestion("q", "truth", False, ("p", "r"), views)
    assert believe("majority", [question], GROUPS)[1].mean_XZ[0].tolist() == [0.75, 0.25]


def test_joint_falls_back_to_the_vote_and_says_so(caplog):
    asked = questions(60, SETTINGS.folds - 1)
    _, joint = believe("joint", asked, GROUPS)
    assert "4 verified questions are too few for 5 folds" in caplog.text
    assert same(joint, believe("majority", asked, GROUPS)[1]) and joint.num_labels == 0


def test_joint_beats_the_vote_under_false_consensus_and_the_weighted_consensus_does_not():
    """3 of 4 groups share one myth on a quarter of the questions; 30 % are verified.

    The vote is wrong on that quarter. So is the weighted consensus: it takes the groups' errors for
    independent, and three groups that are right on 2/3 of the questions outweigh one that nearly
    always is. Only the head that is fitted on what is true, not on who agrees, sees through it.
    """
    asked = planted(RATES, 300, 90, false_consensus=0.25)
    found = {head: scores(head, asked, list(RATES))["accuracy"] for head in METHODS[:3]}
    assert 0.6 < found["majority"] < 0.85
    assert found["joint"] > found["majority"] + 0.15 and found["joint"] > 0.93
    assert abs(found["dawid_skene"] - found["majority"]) < 0.05


def test_joint_says_how_sure_it_is():
    """Calibration error over 10 bins, hidden questions; the vote's shares are no probabilities."""
    asked = planted({"a": 0.1, "b": 0.3, "c": 0.4, "d": 0.5}, 500, 150, seed=1)
    joint = scores("joint", asked, ["a", "b", "c", "d"])
    vote = scores("majority", asked, ["a", "b", "c", "d"])
    assert joint["ece"] < 0.05 < vote["ece"]
    assert joint["brier"] < vote["brier"] and joint["log_loss"] < vote["log_loss"]


def test_a_labelled_question_is_scored_without_its_own_label():
    """One question of many has the opposite label; cross-fitting must not learn it by heart."""
    asked = questions(40, 40)
    odd = {
        g: view(z, t)
        for g, z, t in zip(GROUPS, (TRUE, "myth", "myth"), (0.0, 1.0, 1.0), strict=True)
    }
    asked[0] = replace(asked[0], views=odd)
    assert float(believe("joint", asked, GROUPS)[1].mean_XZ[0, 1]) > 0.8


@pytest.mark.parametrize("head", ["joint", "dawid_skene"])
def test_the_own_label_of_a_question_moves_nothing_but_the_temperature(head):
    """With one member per fold the estimate is softmax(logits / T): T log p is logits up to a
    constant, and may not change when the question's own label does."""
    asked = planted(RATES, 60, 60, false_consensus=0.3)
    settings = SETTINGS.model_copy(update={"ensemble_size": 1})
    evidence, _ = believe(head, asked, list(RATES))
    mask = evidence.answer_mask()
    for x in (mask.sum(-1) > 1).nonzero().flatten().tolist()[:6]:
        labels = evidence.labels_X.clone()
        labels[x] = (labels[x] + 1) % 2
        logits = []
        for own in (evidence.labels_X, labels):
            found = truth_head_by_name(head)(replace(evidence, labels_X=own), settings, 0)
            real = found.mean_XZ[x, mask[x]].log() * found.temperature
            logits.append(real - real[0])
        assert float(logits[0].abs().max()) > 0.1
        assert torch.allclose(*logits, atol=1e-3)


def test_no_answer_may_be_true():
    asked = questions(60, 60)
    none = [replace(q, views={g: view("myth", 0.0) for g in GROUPS}) for q in asked[:30]]
    _, believed = believe("joint", [*none, *asked[30:]], GROUPS)
    assert float(believed.mean_XZ[:30].sum(-1).mean()) < 0.2


@pytest.mark.parametrize("head", ["joint", "dawid_skene", "majority"])
def test_estimates_are_probabilities_and_pessimism_lowers_them(head):
    _, believed = believe(head, planted(RATES, 80, 30, false_consensus=0.2), list(RATES))
    assert float(believed.mean_XZ.min()) >= 0
    assert float(believed.mean_XZ.sum(-1).max()) <= 1 + 1e-5
    assert float(believed.std_XZ.min()) >= 0
    low, lower = believed.pessimistic(0.5), believed.pessimistic(2.0)
    assert torch.all(low <= believed.mean_XZ) and torch.all(lower <= low) and lower.min() >= 0
    if head != "majority":
        assert float((believed.mean_XZ - low).max()) > 0.01


@pytest.mark.parametrize("head", sorted(TRUTH_HEADS))
def test_the_same_seed_gives_the_same_estimate(head):
    asked = planted(RATES, 60, 20, false_consensus=0.2)
    first, second = (believe(head, asked, list(RATES), seed=3)[1] for _ in range(2))
    assert same(first, second)


@pytest.mark.parametrize("head", sorted(TRUTH_HEADS))
def test_the_order_of_groups_means_nothing(head):
    asked = planted(RATES, 60, 20, false_consensus=0.2)
    first = believe(head, asked, ["best", "one", "two", "three"])[1]
    second = believe(head, asked, ["three", "best", "two", "one"])[1]
    assert same(first, second, atol=2e-4)  # float32 sums in another order


@pytest.mark.parametrize("head", METHODS)
def test_no_method_sees_hidden_gold(head):
    """Neither the gold meant for the oracle nor truths that stand by mistake in hidden rows."""
    asked = planted(RATES, 60, 20, false_consensus=0.2)
    leaked = [
        q
        if q.gold_visible
        else replace(
            q,
            views={
                g: replace(v, candidates=tuple(replace(c, truth=1.0) for c in v.candidates))
                for g, v in q.views.items()
            },
        )
        for q in asked
    ]
    right = gather_evidence(asked, list(RATES), lambda *_: -1.0, {q.id: (TRUE,) for q in asked})
    wrong = gather_evidence(
        leaked, list(RATES), lambda *_: -1.0, {q.id: ("wrong a",) for q in asked}
    )
    estimate = truth_head_by_name(head)
    assert same(estimate(right, SETTINGS, 0), estimate(wrong, SETTINGS, 0))
    oracle = truth_head_by_name("oracle")
    assert not same(oracle(right, SETTINGS, 0), oracle(wrong, SETTINGS, 0))


def test_the_oracle_is_exact_and_never_a_method():
    asked = planted(RATES, 40, 10, false_consensus=0.3)
    _, oracle = believe("oracle", asked, list(RATES))
    for x, question in enumerate(asked):
        expected = [float(z == TRUE) for z in question.answers]
        assert oracle.mean_XZ[x, : len(expected)].tolist() == expected
    said = [any(z == TRUE for z in q.answers) for q in asked if not q.gold_visible]
    assert scores("oracle", asked, list(RATES))["accuracy"] == sum(said) / len(said)
    evidence = gather_evidence(asked, list(RATES), lambda *_: -1.0)
    with pytest.raises(ConfigError, match="needs the hidden gold"):
        truth_head_by_name("oracle")(evidence, SETTINGS, 0)
    assert "oracle" not in beliefs_by_head(evidence, SETTINGS, 0)
    assert set(beliefs_by_head(evidence, SETTINGS, 0, {"oracle": oracle})) == set(TRUTH_HEADS)


def test_labels_know_what_is_verified_and_nothing_else():
    asked = planted(RATES, 40, 10, false_consensus=0.3)
    evidence, known = believe("labels", asked, list(RATES))
    hidden = evidence.labels_X == HIDDEN
    assert torch.all(known.mean_XZ[hidden].isnan()) and torch.all(
        known.pessimistic(1)[hidden].isnan()
    )
    for x, question in enumerate(asked[:10]):
        expected = [float(z == TRUE) for z in question.answers]
        assert known.mean_XZ[x, : len(expected)].tolist() == expected
    assert known.num_labels == 10
    assert set(scores("labels", asked, list(RATES)).values()) == {None}


def test_with_labels_an_unverified_candidate_has_no_truth_and_objectives_stay_finite():
    asked = planted(RATES, 40, 10)
    _, known = believe("labels", asked, list(RATES))
    tensors = candidate_tensors(asked, list(RATES), known, 0.5)
    assert not tensors.truth_GXK[:, :10][tensors.mask_GXK[:, :10]].isnan().any()
    assert tensors.truth_GXK[:, 10:].isnan().all()
    value = objective_values(tensors)
    assert value.isfinite().all() and known_objectives(tensors).all()
    # 10 of 40 questions are known: each counts four times in the mean over all
    truth = torch.nan_to_num(tensors.truth_GXK)
    assert torch.equal(value[0], 4 * truth)


def test_an_estimate_at_hand_is_not_fitted_again():
    asked = planted(RATES, 30, 10)
    evidence, vote = believe("majority", asked, list(RATES))
    found = beliefs_by_head(evidence, SETTINGS, 0, {"joint": vote})
    assert found["joint"] == found["majority"] and set(found) == set(METHODS)
    assert found["labels"][asked[-1].id][TRUE] is None
