"""Weighted consensus: equations by hand, a loop from the equations, and planted reliabilities."""

import pytest
import torch

from tests.trialign_ray.planted_worlds import believe, planted, scores, view
from trialign_ray.candidates import JointQuestion
from trialign_ray.truth_heads import HIDDEN, gather_evidence
from trialign_ray.truth_heads.dawid_skene import _expect, fit_consensus
from trialign_ray.truth_heads.majority import shares

RATES = {"a": 0.05, "b": 0.2, "c": 0.4, "d": 0.6}


def consensus(questions, groups, num_clamped=0):
    """The consensus of one member that sees every question once and the first labels."""
    evidence = gather_evidence(questions, groups, lambda *_: -1.0)
    clamped = (torch.arange(len(questions)) < num_clamped).unsqueeze(0)
    weight = torch.ones(1, len(questions), dtype=torch.float64)
    share, mask = shares(evidence, "first"), evidence.answer_mask()
    return fit_consensus(share, mask, evidence.labels_X, clamped, weight), evidence


def test_posterior_odds_are_those_worked_by_hand():
    """Reliabilities .9 and .6; the first says p, the second r; n = 2 wrong answers to choose from.

    p true: .9 * .4 / 2; r true: .1 / 2 * .6; odds (.9 / .05) / (.6 / .2) = 6.
    None true, prior .2: .1 / 2 * .4 / 2 * .2 = .002; p: .18 * .8 / 2 = .072; odds of p 36.
    """
    share = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)
    reliability = torch.tensor([[0.9, 0.6]], dtype=torch.float64)
    none = torch.tensor([0.2], dtype=torch.float64)
    mask = torch.ones(1, 2, dtype=torch.bool)
    p, r, nothing = _expect(reliability, none, share, share.sum(-1), mask)[0, 0].exp().tolist()
    assert p / r == pytest.approx(6.0) and p / nothing == pytest.approx(36.0)


def test_with_every_label_clamped_reliability_is_the_smoothed_hit_rate():
    """20 questions, all known: (1 + hits) / (2 + 20), with one pseudo-hit and one pseudo-miss."""
    questions = planted(RATES, 20, 20)
    found, _ = consensus(questions, list(RATES), num_clamped=20)
    for g, group in enumerate(RATES):
        hits = sum(q.views[group].first.get("true", 0.0) for q in questions)
        assert float(found.reliability_MG[0, g]) == pytest.approx((1 + hits) / 22)


def test_em_is_the_loop_of_the_equations():
    questions = planted({"a": 0.1, "b": 0.3, "c": 0.5}, 25, 8)
    found, evidence = consensus(questions, ["a", "b", "c"], num_clamped=8)
    reliability, posterior = _naive(questions, ["a", "b", "c"], evidence.labels_X.tolist(), 8)
    assert found.reliability_MG[0].tolist() == pytest.approx(reliability, abs=1e-5)
    for x, row in enumerate(posterior[8:], start=8):
        columns = [*range(len(questions[x].answers)), -1]
        ours = found.logits_MXZ[0, x].softmax(-1)[columns]
        assert ours.tolist() == pytest.approx(row, abs=1e-4)


def _naive(questions, groups, labels, num_clamped):
    def known(x):
        row = [0.0] * (len(questions[x].answers) + 1)
        row[labels[x] if labels[x] < len(row) - 1 else -1] = 1.0
        return row

    def vote(q):
        mass = [sum(q.views[g].first.get(z, 0.0) for g in groups) for z in q.answers]
        return [m / sum(mass) for m in mass] + [0.0]

    posterior = [known(x) if x < num_clamped else vote(q) for x, q in enumerate(questions)]
    reliability = []
    for _ in range(300):
        reliability = []
        for g in groups:
            right = 1.0
            for q, row in zip(questions, posterior, strict=True):
                right += sum(
                    p * q.views[g].first.get(z, 0.0) for z, p in zip(q.answers, row, strict=False)
                )
            reliability.append(right / (2 + len(questions)))
        none = (1 + sum(row[-1] for row in posterior)) / (10 + len(questions))
        for x, q in enumerate(questions):
            if x < num_clamped:
                continue
            n = len(q.answers)
            weights = []
            for true in (*q.answers, None):
                weight = none if true is None else (1 - none) / n
                for g, r in zip(groups, reliability, strict=True):
                    said = next(iter(q.views[g].first))
                    weight *= r if said == true else (1 - r) / n
                weights.append(weight)
            posterior[x] = [w / sum(weights) for w in weights]
    return reliability, posterior


def test_independent_errors_give_the_planted_reliabilities_without_any_label():
    """1,000 questions: the standard error of a rate is at most .016."""
    questions = planted(RATES, 1000, 0)
    found, _ = consensus(questions, list(RATES))
    expected = [1 - error for error in RATES.values()]
    assert found.reliability_MG[0].tolist() == pytest.approx(expected, abs=0.05)


def test_reliable_groups_outvote_more_unreliable_ones_without_any_label():
    rates = {"a": 0.02, "b": 0.05, "c": 0.7, "d": 0.7, "e": 0.7, "f": 0.7}
    questions = planted(rates, 300, 0)
    weighted = scores("dawid_skene", questions, list(rates))["accuracy"]
    assert weighted > 0.93
    assert weighted > scores("majority", questions, list(rates))["accuracy"] + 0.02


def test_labels_teach_that_a_majority_is_unreliable():
    """Two of three groups always share a myth: unlabelled, EM calls them the reliable ones."""
    groups = ("good", "bad", "worse")

    def asked(num_labelled):
        made = []
        for i in range(60):
            truths = (1.0, 0.0, 0.0) if i < num_labelled else (None, None, None)
            said = zip(groups, ("yes", "myth", "myth"), truths, strict=True)
            views = {g: view(z, t) for g, z, t in said}
            made.append(
                JointQuestion(f"q{i:02}", "truth", i < num_labelled, ("myth", "yes"), views)
            )
        return made

    blind, _ = consensus(asked(0), groups)
    taught, _ = consensus(asked(40), groups, num_clamped=40)
    assert blind.reliability_MG[0, 0] < 0.1 < 0.9 < blind.reliability_MG[0, 1]
    assert taught.reliability_MG[0, 0] > 0.9 > 0.1 > taught.reliability_MG[0, 1]
    assert float(believe("dawid_skene", asked(40), groups)[1].mean_XZ[40:, 1].min()) > 0.9


def test_matters_of_taste_say_nothing_about_reliability():
    facts = planted(RATES, 60, 20)
    tastes = [
        JointQuestion(
            f"t{i}",
            "subjective",
            False,
            tuple("abcd"),
            {g: view(z) for g, z in zip(RATES, "abcd", strict=True)},
        )
        for i in range(60)
    ]
    alone = believe("dawid_skene", facts, list(RATES))[1].mean_XZ[20:]
    beside = believe("dawid_skene", [*facts, *tastes], list(RATES))[1].mean_XZ[20:60]
    width = alone.shape[-1]
    # Other bootstrap draws, the same reliabilities: at most one group can be right on a taste where
    # all differ, so tastes would pull all four down.
    assert float((alone - beside[:, :width]).abs().mean()) < 0.02


def test_an_absent_group_and_a_silent_question_do_no_harm():
    questions = planted(RATES, 60, 20)
    silent = JointQuestion("silent", "truth", False, (), {})
    lonely = JointQuestion("lonely", "truth", False, ("true",), {"a": view("true")})
    evidence, believed = believe("dawid_skene", [*questions, silent, lonely], list(RATES))
    assert believed.mean_XZ.isfinite().all() and believed.std_XZ.isfinite().all()
    assert float(believed.mean_XZ[60].sum()) == 0.0
    assert float(believed.mean_XZ[61, 0]) > 0.5
    assert evidence.labels_X[60] == HIDDEN


def test_a_group_alone_is_believed_as_far_as_labels_bear_it_out():
    """One group, right on all of 40 labels, one answer per question, so n = 1. EM believes the
    hidden answers too: r = 51 / 52 and none = 1 / 60 at least. With odds r (1 - none) : (1 - r)
    none = 51 * 59 : 1 the answer is nearly, but never quite, certain."""
    made = [
        JointQuestion(
            f"q{i}", "truth", i < 40, ("yes",), {"a": view("yes", 1.0 if i < 40 else None)}
        )
        for i in range(50)
    ]
    found, _ = consensus(made, ["a"], num_clamped=40)
    believed = found.logits_MXZ[0, 45].softmax(-1)[0]
    assert float(found.reliability_MG) == pytest.approx(51 / 52, abs=1e-3)
    assert 0.999 < float(believed) < 1
    assert believe("dawid_skene", made, ["a"])[1].temperature == 1.0
