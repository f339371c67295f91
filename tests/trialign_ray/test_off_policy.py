"""Estimates from a log: intervals over questions, and no estimate where the log cannot say."""

from dataclasses import replace

import numpy as np
import pytest

from trialign_ray.errors import DataError, ShapeError
from trialign_ray.off_policy import (
    EstimateOptions,
    FirstAnswers,
    ValueEstimates,
    candidate_values,
    estimate_group,
    first_answers,
)

# Four answers to a question, of which only the first is true; mu is uniform, pi prefers the truth.
MU, PI, TRUE = np.full(4, 0.25), np.array([0.55, 0.15, 0.15, 0.15]), np.array([1.0, 0, 0, 0])


def log_of(action_N, num_per_question=4):
    num = len(action_N)
    return FirstAnswers(
        question_ids=tuple(f"q{n // num_per_question}" for n in range(num)),
        episode_ids=tuple(f"e{n}" for n in range(num)),
        prompts=("",) * num,
        texts=tuple("abcd"[a] for a in action_N),
        token_ids=tuple((int(a), 9) for a in action_N),
        answers=tuple("abcd"[a] for a in action_N),
        truncated_N=np.zeros(num, dtype=bool),
        behaviour_logprob_N=np.log(MU)[action_N],
        truth_N=TRUE[action_N],
        personalization_N=np.full(num, np.nan),
    )


ACTION = np.random.default_rng(0).integers(0, 4, 400)
LOG = log_of(ACTION)
NEW = np.log(PI)[ACTION]


def estimate(log=LOG, new=NEW, reward=None, q_hat=None, **options):
    reward = log.truth_N if reward is None else reward
    return estimate_group(log, new, reward, q_hat, EstimateOptions(**options), seed=0)


def row(turn, question, texts, truth, **changes):
    num = len(texts)
    return {
        "turn": turn,
        "question_id": question,
        "episode_id": f"{question}#0",
        "group_ids": ["blue", "green"][:num],
        "present": [True] * num,
        "prompt_text": ["ask"] * num,
        "action_text": texts,
        "action_token_ids": [[1, 9]] * num,
        "parsed_answer": texts,
        "truncated": [False] * num,
        "behaviour_logprob": [-1.0] * num,
        "r_truth": truth,
        "r_pers": [0.5] * num,
    } | changes


def test_first_answers_are_the_groups_own_at_turn_zero():
    rows = [
        row(0, "q0", ["a", "b"], [1.0, None]),
        row(1, "q0", ["later", "later"], [1.0, 1.0]),
        row(0, "q1", ["c", "d"], [0.0, 1.0], present=[True, False]),
    ]
    blue, green = first_answers(rows, "blue"), first_answers(rows, "green")
    assert blue.texts == ("a", "c") and blue.truth_N.tolist() == [1.0, 0.0]
    assert green.question_ids == ("q0",) and np.isnan(green.truth_N).all()  # null is not 0


def test_the_new_policys_value_lies_in_every_interval():
    q_hat = ValueEstimates(np.full(400, 0.4), np.full(400, 0.4))
    report = estimate(q_hat=q_hat)
    assert report["refused"] is None and report["num"] == 400 and report["num_questions"] == 100
    for name in ("is", "wis", "dr"):
        low, high = report[name]["ci"]
        assert low < PI @ TRUE < high and low < report[name]["value"] < high
    low, high = report["mean_weight"]["ci"]
    assert low < 1 < high
    # ESS: weights 2.2 and .6 with shares 1/4 and 3/4, so N / E[w^2] = 400 / (1.21 + .27)
    assert report["ess"] == pytest.approx(400 / 1.48, rel=0.05)


def test_a_good_critic_narrows_the_interval():
    # Rewards are noisy around Q, and the critic knows Q: only the noise is left to weigh.
    noise = np.random.default_rng(1).normal(0, 0.1, 400)
    exact = ValueEstimates(TRUE[ACTION], np.full(400, PI @ TRUE))
    report = estimate(reward=LOG.truth_N + noise, q_hat=exact)
    assert np.ptp(report["dr"]["ci"]) < 0.5 * np.ptp(report["is"]["ci"])


def test_the_question_is_what_is_resampled():
    # One draw per question copied 8 times says no more than the draw itself; counted as
    # independent answers its interval would be sqrt(8) times too narrow.
    draws = ACTION[:200]
    single = estimate(log_of(draws, 1), np.log(PI)[draws])
    copied = estimate(log_of(draws.repeat(8), 8), np.log(PI)[draws.repeat(8)])
    assert copied["is"]["value"] == pytest.approx(single["is"]["value"])
    assert np.ptp(copied["is"]["ci"]) == pytest.approx(np.ptp(single["is"]["ci"]), rel=0.15)


def test_the_behaviour_model_itself_earns_what_the_log_earned():
    report = estimate(new=LOG.behaviour_logprob_N)
    assert report["is"]["value"] == report["wis"]["value"] == pytest.approx(LOG.truth_N.mean())
    assert report["ess"] == pytest.approx(400) and report["dr"] is None


def test_a_small_effective_sample_is_refused_with_both_numbers():
    far = np.where(np.arange(400) < 20, 0.0, -30.0)  # twenty logged answers carry all the weight
    report = estimate(new=far)
    assert report["is"] is report["wis"] is report["dr"] is None
    assert "20.0 of 400" in report["refused"] and "below 30" in report["refused"]
    assert report["ess"] == pytest.approx(20.0)
    assert estimate(new=far, min_ess=19.0)["refused"] is None


def test_absurd_weights_are_refused_not_overflown():
    report = estimate(new=np.where(np.arange(400) < 1, 0.0, -5000.0) + 2000)
    assert report["refused"] and report["ess"] == pytest.approx(1.0)
    nowhere = estimate(new=np.full(400, -np.inf))
    assert nowhere["refused"] and nowhere["ess"] == 0.0


def test_unknown_rewards_are_left_out_and_counted():
    reward = np.where(np.arange(400) < 200, LOG.truth_N, np.nan)
    report = estimate(reward=reward)
    half = estimate(log_of(ACTION[:200]), NEW[:200])
    assert report["num"] == 200 and report["num_left_out"] == 200
    assert report["wis"] == half["wis"]
    nothing = estimate(reward=np.full(400, np.nan))
    assert "0 answers" in nothing["refused"] and "reward" in nothing["refused"]


def test_an_adapter_that_says_what_nobody_logged_shows_in_the_mean_weight():
    # Nine tenths of pi lie on an answer that is not in the log. All weights are equal, so the
    # effective sample is full: only their mean tells.
    report = estimate(new=np.log(0.1 * MU)[ACTION])
    assert report["ess"] == pytest.approx(400) and report["refused"] is None
    assert report["mean_weight"]["value"] == pytest.approx(0.1)


def test_a_log_sampled_at_another_temperature_is_refused():
    assert "temperature 0.7" in str(estimate(temperature=0.7)["refused"])


def test_bounded_weights_are_reported():
    # pi/mu is 2.2 on the truth; at most 2 leaves IS 2/2.2 of itself
    free, bounded = estimate(), estimate(max_weight=2.0)
    assert bounded["num_clipped"] == int(LOG.truth_N.sum()) and free["num_clipped"] == 0
    assert bounded["is"]["value"] == pytest.approx(free["is"]["value"] * 2 / 2.2)


def test_candidates_are_a_critic_that_is_zero_elsewhere():
    # One question, candidates of probability .5 and .2 with Q 1 and .5, a third that is padding.
    values = candidate_values(
        question_N=np.array([0, 0, 0]),
        candidate_N=np.array([1, 0, -1]),
        new_logprob_XK=np.log([[0.5, 0.2, 0.3]]),
        q_XK=np.array([[1.0, 0.5, np.nan]]),
        mask_XK=np.array([[True, True, False]]),
    )
    assert values.q_N.tolist() == [0.5, 1.0, 0.0]
    assert values.value_N == pytest.approx([0.6] * 3)  # .5 * 1 + .2 * .5


def test_what_does_not_fit_is_named():
    with pytest.raises(ShapeError, match="one entry per first answer"):
        estimate(reward=np.ones(3))
    with pytest.raises(DataError, match="infinite"):
        estimate(replace(LOG, behaviour_logprob_N=np.full(400, -np.inf)))
