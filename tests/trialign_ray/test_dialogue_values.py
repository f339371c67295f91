"""Values of a dialogue: how it is encoded, and what a first answer does to those who hear it."""

import math
from random import Random

import pytest
import torch

from trialign_ray.candidates import join_questions
from trialign_ray.critic import candidate_tensors
from trialign_ray.dialogue_features import DialogueEncoder, RewardWeights, dialogue_transitions
from trialign_ray.dialogue_values import (
    candidate_rewards,
    externality,
    multi_turn_tensors,
    turn_zero_values,
)
from trialign_ray.errors import DataError
from trialign_ray.truth_heads import TruthEstimate
from trialign_ray.values import ValueConfig, fit_values

GROUPS = ("a", "b", "c", "d")
TRUTH_ALONE = RewardWeights(1.0, 0.0)


def row(question, episode, turn, answers, *, terminated=True, truth=None, groups=GROUPS):
    """One joint turn; "yes" is true unless `truth` says otherwise; None as answer: absent."""
    return {
        "episode_id": f"{question}#{episode}",
        "turn": turn,
        "question_id": question,
        "kind": "truth",
        "gold_visible": truth is None,
        "group_ids": list(groups),
        "present": [z is not None for z in answers],
        "prompt_text": ["prompt"] * len(groups),
        "action_text": [f"It is {z}." for z in answers],
        "parsed_answer": list(answers),
        "r_truth": [None if z is None else float(z == "yes") for z in answers],
        "r_pers": [0.5] * len(groups),
        "terminated": terminated,
        "truncated": [False] * len(groups),
    }


def dialogue_world(influence, num_questions=60, num_episodes=6):
    """Questions differ in how many know them; turn 1 follows peers with weight `influence`.

    P(truth at turn 1) = (1 - influence) * p_question + influence * share of peers that were true.
    """
    random, rows = Random(0), []
    for i in range(num_questions):
        known = random.choice((0.2, 0.4, 0.6, 0.8))
        for episode in range(num_episodes):
            first = [random.random() < known for _ in GROUPS]
            peers = [(sum(first) - own) / (len(GROUPS) - 1) for own in first]
            second = [
                random.random() < (1 - influence) * known + influence * share for share in peers
            ]
            for turn, said in enumerate((first, second)):
                answers = ["yes" if true else "myth" for true in said]
                rows.append(row(f"q{i:02}", episode, turn, answers, terminated=turn == 1))
    return rows


def flat_estimate(questions):
    width = max(len(q.answers) for q in questions)
    half = torch.full((len(questions), width), 0.5)
    return TruthEstimate(half, torch.zeros_like(half), 1.0, 1)


def test_influence_on_peers_is_found_where_there_is_some():
    # My truth moves each peer's probability by .6 / 3, so the peers' mean by .2.
    rows = dialogue_world(influence=0.6)
    found = externality(rows, join_questions(rows), GROUPS, {}, ValueConfig(steps=600), 0)
    for group in GROUPS:
        assert found[group]["from_q"] == pytest.approx(0.2, abs=0.07)
        assert found[group]["matched"] == pytest.approx(
            0.2, abs=3 * found[group]["matched_standard_error"]
        )


def test_easy_questions_are_not_mistaken_for_influence():
    rows = dialogue_world(influence=0.0)
    found = externality(rows, join_questions(rows), GROUPS, {}, ValueConfig(steps=600), 0)
    for group in GROUPS:
        assert abs(found[group]["from_q"]) < 0.07
        assert abs(found[group]["matched"]) < 3 * found[group]["matched_standard_error"]
    # p is one of .2 .. .8: Var p = .05, E p (1 - p) = .2, and the unmatched difference of means
    # is Cov(first, peers) / Var(first) = .05 / .25 = .2, all of it the questions' doing.
    assert sum(f["unmatched"] for f in found.values()) / 4 == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(("influence", "effect"), [(0.6, 0.135), (0.0, 0.0)])
def test_the_teams_value_of_the_truth_exceeds_the_own_reward_by_what_peers_gain(influence, effect):
    # gamma * (3 peers * .2 + myself * 0) / 4 = .9 * .15 at influence .6, nothing at 0.
    rows = dialogue_world(influence)
    questions = join_questions(rows)
    encoder = DialogueEncoder(questions, GROUPS, {}, 2)
    tensors = candidate_tensors(questions, GROUPS, flat_estimate(questions), 0.0)
    config = ValueConfig(steps=600, credit="team", expectile=0.5)
    values = fit_values(dialogue_transitions(rows, encoder, TRUTH_ALONE), config, 0)
    q = turn_zero_values(values, questions, tensors, encoder, TRUTH_ALONE)
    gain = (q - tensors.truth_GXK)[:, [len(x.answers) == 2 for x in questions]]
    true = tensors.truth_GXK[:, [len(x.answers) == 2 for x in questions]] == 1
    assert float(gain[true].mean() - gain[~true & ~gain.isnan()].mean()) == pytest.approx(
        effect, abs=0.05
    )


def test_one_turn_and_discount_0_give_the_reward_itself():
    rows = [r | {"terminated": True} for r in dialogue_world(0.6, 6, 2) if r["turn"] == 0]
    questions = join_questions(rows)
    tensors = candidate_tensors(questions, GROUPS, flat_estimate(questions), 0.0)
    encoder = DialogueEncoder(questions, GROUPS, {}, 1)
    both = RewardWeights(2.0, 1.0)
    values = fit_values(dialogue_transitions(rows, encoder, both), ValueConfig(steps=20), 0)
    q = turn_zero_values(values, questions, tensors, encoder, both)
    known = tensors.mask_GXK
    assert torch.equal(q.isnan(), ~known)
    assert torch.equal(q[known], ((2 * tensors.truth_GXK + tensors.personalization_GXK) / 3)[known])
    none = ValueConfig(discount=0.0)
    assert multi_turn_tensors(tensors, rows, questions, GROUPS, {}, none, 0) is tensors
    again = multi_turn_tensors(tensors, rows, questions, GROUPS, {}, ValueConfig(steps=5), 0)
    assert torch.equal(again.truth_GXK[known], tensors.truth_GXK[known])


def test_a_dialogue_is_encoded_as_it_was():
    rows = [
        row("q", 0, 0, ["yes", "myth", "yes", None], terminated=False),
        row("q", 0, 1, ["yes", "yes", None, "abstain"], terminated=False),
    ]
    encoder = DialogueEncoder(join_questions(rows), GROUPS, {}, 2)
    made = dialogue_transitions(rows, encoder, TRUTH_ALONE)
    absent = math.nan
    assert torch.allclose(
        made.reward_NG,
        torch.tensor([[1.0, 0.0, 1.0, absent], [1.0, 1.0, absent, 0.0]]),
        equal_nan=True,
    )
    # a and b speak next at turn 1; c never again, but the log breaks off: nobody has terminated
    assert not made.terminated_NG.any()
    assert torch.equal(made.next_state_NGS[0, 0], made.state_NGS[1, 0])
    assert torch.equal(made.next_state_NGS[0, 2], made.next_state_NGS[1, 2])
    ended = dialogue_transitions([rows[0], rows[1] | {"terminated": True}], encoder, TRUTH_ALONE)
    assert ended.terminated_NG.tolist() == [[False, False, True, False], [True] * 4]
    # State of b at turn 1: clock 0 1, truth question, best belief 1, mean opening belief 2 / 4, 2
    # answers of 4 groups, its own opening 0; it spoke, believed 0, is no non-answer, no peer agrees
    # with it, both peers that spoke say "yes" (believed 1), so it is not with them, peers' mean 1;
    # then by name: last and opening beliefs.
    assert made.state_NGS[1, 1].tolist() == pytest.approx(
        [0, 1, 1, 1, 0.5, 0.5, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0]
    )
    # b now says "yes": believed, truth known, style .5, style known, not what it said, the peers'
    # favourite, said by all of them, an answer, and 2 of 3 peers open with it (d has no turn 0).
    assert made.action_NGA[1, 1].tolist() == pytest.approx([1, 1, 0.5, 1, 0, 1, 1, 0, 1])


def test_hidden_gold_is_replaced_by_belief_and_an_unknown_one_stays_unknown():
    hidden = row("q", 0, 0, ["yes", "myth", "abstain", "unparsed"], truth="hidden")
    hidden["r_truth"] = [None] * 4
    questions = join_questions([hidden])
    encoder = DialogueEncoder(questions, GROUPS, {"q": {"yes": 0.8, "myth": math.nan}}, 1)
    reward = dialogue_transitions([hidden], encoder, TRUTH_ALONE).reward_NG[0]
    assert reward.tolist()[0] == pytest.approx(0.8) and math.isnan(reward[1])
    assert reward[2:].tolist() == [0.0, 0.0]
    # with style, what is unknown is left out and the weights are renormalised
    both = dialogue_transitions([hidden], encoder, RewardWeights(3.0, 1.0)).reward_NG[0]
    assert both.tolist() == pytest.approx([(3 * 0.8 + 0.5) / 4, 0.5, 0.125, 0.125])
    tensors = candidate_tensors(questions, GROUPS, flat_estimate(questions), 0.0)
    assert candidate_rewards(tensors, TRUTH_ALONE).isnan().equal(~tensors.mask_GXK)


def test_renaming_groups_moves_a_dialogues_values_with_them():
    rows = dialogue_world(0.6, 8, 3)
    renamed = [
        r | {"group_ids": [GROUPS[(GROUPS.index(g) + 1) % 4] for g in r["group_ids"]]} for r in rows
    ]
    results = []
    for log in (rows, renamed):
        encoder = DialogueEncoder(join_questions(log), GROUPS, {}, 2)
        data = dialogue_transitions(log, encoder, TRUTH_ALONE)
        values = fit_values(data, ValueConfig(steps=40, credit="team"), 0)
        results.append(values.q(data.state_NGS, data.action_NGA, data.reward_NG))
    assert results[0].std() > 0.1
    assert torch.allclose(results[0], results[1][:, [1, 2, 3, 0]], atol=1e-3)


def test_without_a_second_turn_there_is_no_externality():
    rows = [r for r in dialogue_world(0.6, 2, 1) if r["turn"] == 0]
    with pytest.raises(DataError, match="nobody heard a peer"):
        externality(rows, join_questions(rows), GROUPS, {}, ValueConfig(steps=1), 0)


def test_two_objectives_become_means_per_turn():
    rows = dialogue_world(0.6, 10, 2)
    questions = join_questions(rows)
    tensors = candidate_tensors(questions, GROUPS, flat_estimate(questions), 0.0)
    config = ValueConfig(steps=400, expectile=0.5)
    multi = multi_turn_tensors(tensors, rows, questions, GROUPS, {}, config, 0)
    # Style is .5 whatever is said, so its mean per turn is .5: (.5 + .9 * .5) / 1.9.
    style = multi.personalization_GXK[multi.mask_GXK]
    assert style.tolist() == pytest.approx([0.5] * len(style), abs=0.02)
    assert multi.truth_GXK.isnan().equal(~multi.mask_GXK)
    assert torch.equal(multi.reference_GXK, tensors.reference_GXK)
