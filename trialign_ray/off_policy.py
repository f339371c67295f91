"""Off-policy estimates of a group's adapter from first answers of the log.

What the log can say before anything is generated: the value of the new policy on the questions that
were asked, with intervals over questions. Where too few logged answers resemble what the adapter
says, nothing is estimated: generate on held-out questions and verify.

The weights hold if the log was sampled at temperature 1 without truncating the distribution: the
log-probabilities of the log are those of the behaviour model at temperature 1.

Shapes: N first answers of one group, X questions, K candidates (padded).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trialign_ray.errors import DataError, ShapeError
from trialign_ray.ops.off_policy import (
    doubly_robust_terms,
    effective_sample_size,
    fitted_q_evaluation,
    importance_weights,
)
from trialign_ray.ops.statistics import bootstrap_interval
from trialign_ray.seeds import derive_seed

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FirstAnswers:
    """What one group said at turn 0, one entry per utterance, in the order of the log.

    episode_ids: the dialogue of each. token_ids: as sampled, end token included; empty where the
    log does not hold them. answers: as parsed. behaviour_logprob_N: sum over tokens; nan where the
    log does not hold it. truncated_N: cut by the length limit, so that the end token is not part of
    the utterance.
    """

    question_ids: tuple[str, ...]
    episode_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    answers: tuple[str, ...]
    truncated_N: NDArray[np.bool_]
    behaviour_logprob_N: Floats
    truth_N: Floats
    personalization_N: Floats


@dataclass(frozen=True)
class ValueEstimates:
    """Of a critic: Q of the logged answer, and V = sum_a pi(a) Q(a) of the new policy there."""

    q_N: Floats
    value_N: Floats


@dataclass(frozen=True)
class EstimateOptions:
    """min_ess: below it nothing is estimated. max_weight: bound of a weight, None for none (a
    bound biases, so how many it lowers is reported). temperature: that the log was sampled at."""

    min_ess: float = 30.0
    max_weight: float | None = None
    temperature: float = 1.0
    confidence: float = 0.95
    num_resamples: int = 1000


def first_answers(rows: Sequence[dict[str, Any]], group: str) -> FirstAnswers:
    """The turn-0 utterances of `group`, from the rows of a log (`dataset.SCHEMA`)."""
    chosen = [
        (row, i)
        for row in rows
        if row["turn"] == 0
        for i, name in enumerate(row["group_ids"])
        if name == group and row["present"][i]
    ]
    return FirstAnswers(
        question_ids=tuple(row["question_id"] for row, _ in chosen),
        episode_ids=tuple(row["episode_id"] for row, _ in chosen),
        prompts=tuple(row["prompt_text"][i] for row, i in chosen),
        texts=tuple(row["action_text"][i] for row, i in chosen),
        token_ids=tuple(tuple(row["action_token_ids"][i] or ()) for row, i in chosen),
        answers=tuple(row["parsed_answer"][i] for row, i in chosen),
        truncated_N=np.array([row["truncated"][i] for row, i in chosen], dtype=bool),
        behaviour_logprob_N=_column(chosen, "behaviour_logprob"),
        truth_N=_column(chosen, "r_truth"),
        personalization_N=_column(chosen, "r_pers"),
    )


def _column(chosen: Sequence[tuple[dict[str, Any], int]], name: str) -> Floats:
    """Values of one column; null becomes nan."""
    return np.array([row[name][i] for row, i in chosen], dtype=np.float64)


def candidate_values(
    question_N: NDArray[np.int_],
    candidate_N: NDArray[np.int_],
    new_logprob_XK: Floats,
    q_XK: Floats,
    mask_XK: NDArray[np.bool_],
) -> ValueEstimates:
    """A critic that knows candidates only, as a Q function: 0 for every other utterance.

    V is then exactly sum_k pi(a_k) Q_k with pi's own probabilities (not renormalised over the
    candidates), so DR stays unbiased however little of the policy the candidates cover, if what is
    a candidate does not depend on the answer that is weighed: pass a row of each answer's own,
    without what only its own episode holds. Else Q = r wherever there is an r, DR is the direct
    method, and whatever nobody logged counts as 0.
    Args: question_N: row of each logged answer. candidate_N: its candidate; -1 where it is none.
    """
    q_XK = np.where(mask_XK, q_XK, 0.0)
    probability_XK = np.where(mask_XK, np.exp(new_logprob_XK), 0.0)
    logged_N = np.where(candidate_N >= 0, q_XK[question_N, np.maximum(candidate_N, 0)], 0.0)
    return ValueEstimates(logged_N, (probability_XK * q_XK).sum(-1)[question_N])


def fitted_values(reward_N: Floats, known: ValueEstimates, judged: ValueEstimates) -> Floats:
    """V of the new policy by fitted Q evaluation of one turn, shape (N,).

    Q(a) = w . (1, is a a candidate, the critic's value of a) is fitted to what the logged answers
    earned, so it corrects a critic that is biased, and judges what is no candidate by what such
    answers earned, where the direct method says 0. All turns end here (`ops.off_policy`).
    Args: known: of the critic that gives every candidate 1. judged: of the critic.
    Returns: nan everywhere if no reward is known.
    """
    used_N, one_N = ~np.isnan(reward_N), np.ones_like(reward_N)
    if not used_N.any():
        return np.full_like(reward_N, np.nan)
    logged_ND = np.stack([one_N, known.q_N, judged.q_N], -1)[used_N]
    ended_N = np.ones(len(logged_ND), dtype=bool)
    fitted = fitted_q_evaluation(logged_ND, reward_N[used_N], np.zeros_like(logged_ND), ended_N)
    return fitted.value(np.stack([one_N, known.value_N, judged.value_N], -1))


def estimate_group(
    answers: FirstAnswers,
    new_logprob_N: Floats,
    reward_N: Floats,
    q_hat: ValueEstimates | None,
    options: EstimateOptions,
    *,
    seed: int,
) -> dict[str, Any]:
    """Estimates of one group's return under its adapter, with intervals over questions.

    Answers without reward or log-probability are left out and counted; where that depends on what
    was said (truncated answers), the estimate speaks of the answers that remain.
    Returns: "is", "wis", "dr": {"value", "ci"}, None where refused ("dr" also without a critic);
    "mean_weight": the same, expected 1: well below it, the adapter says what nobody logged, and
    only "dr" counts it at all; "ess" (of unbounded weights), "num" (answers used), "num_questions",
    "num_left_out", "num_clipped"; "refused": the reason, or None.
    """
    parts = _parts(answers, new_logprob_N, reward_N, q_hat)
    used_N = ~np.any([np.isnan(part_N) for part_N in parts.values()], 0)
    parts = {name: part_N[used_N] for name, part_N in parts.items()}
    question_N = np.unique(np.array(answers.question_ids)[used_N], return_inverse=True)[1]
    ess = _effective_sample_size(parts["new"] - parts["old"])
    report: dict[str, Any] = {
        "is": None,
        "wis": None,
        "dr": None,
        "mean_weight": None,
        "ess": ess,
        "num": int(used_N.sum()),
        "num_questions": len(set(question_N.tolist())),
        "num_left_out": int((~used_N).sum()),
        "num_clipped": 0,
        "refused": _refusal(ess, int(used_N.sum()), options),
    }
    if report["refused"]:
        return report
    weights = importance_weights(parts["new"], parts["old"], options.max_weight)
    for name, (top_N, bottom_N) in _ratios(weights.weight_NT, parts).items():
        own_seed = derive_seed(seed, name) % 2**32
        report[name] = _estimate(top_N, bottom_N, question_N, options, own_seed)
    return report | {"num_clipped": weights.num_clipped}


def mean_estimate(
    answers: FirstAnswers, value_N: Floats, options: EstimateOptions, *, seed: int
) -> dict[str, Any] | None:
    """{"value", "ci"}: the plain mean over answers, nan left out; None if nothing is left.

    Of the rewards it is the value of the behaviour policy, of V(s_n) of a critic the direct method.
    """
    used_N = ~np.isnan(value_N)
    if not used_N.any():
        return None
    question_N = np.unique(np.array(answers.question_ids)[used_N], return_inverse=True)[1]
    value_N = value_N[used_N]
    return _estimate(value_N, np.ones_like(value_N), question_N, options, seed % 2**32)


def _parts(
    answers: FirstAnswers, new_logprob_N: Floats, reward_N: Floats, q_hat: ValueEstimates | None
) -> dict[str, Floats]:
    old_N = answers.behaviour_logprob_N
    parts = {"old": old_N, "new": new_logprob_N, "reward": reward_N}
    if q_hat is not None:
        parts |= {"q": q_hat.q_N, "value": q_hat.value_N}
    shapes = {name: np.shape(part_N) for name, part_N in parts.items()}
    if set(shapes.values()) != {(len(answers.question_ids),)}:
        raise ShapeError(
            f"log-probabilities (old, new), rewards and values have shapes {shapes}; expected one "
            f"entry per first answer of the log, ({len(answers.question_ids)},)"
        )
    if np.isinf(old_N).any():
        raise DataError(
            "behaviour_logprob of a logged answer is infinite; expected a finite number, for the "
            "behaviour policy said it, or null where it is not known"
        )
    return {name: np.asarray(part_N, dtype=np.float64) for name, part_N in parts.items()}


def _ratios(weight_N: Floats, parts: dict[str, Floats]) -> dict[str, tuple[Floats, Floats]]:
    """Every estimate as sums over answers, top / bottom."""
    earned_N, one_N = weight_N * parts["reward"], np.ones_like(weight_N)
    ratios = {
        "is": (earned_N, one_N),
        "wis": (earned_N, weight_N),
        "mean_weight": (weight_N, one_N),
    }
    if "q" in parts:
        terms_N = doubly_robust_terms(weight_N, parts["reward"], parts["q"], parts["value"])
        ratios["dr"] = (terms_N, one_N)
    return ratios


def _effective_sample_size(log_weight_N: Floats) -> float:
    """From logarithms: its scale does not matter, and a weight may be beyond exp's range."""
    largest = log_weight_N.max(initial=-np.inf)
    return effective_sample_size(np.exp(log_weight_N - largest)) if np.isfinite(largest) else 0.0


def _refusal(ess: float, num: int, options: EstimateOptions) -> str | None:
    if options.temperature != 1:
        return (
            f"the log was sampled at temperature {options.temperature:g}, its log-probabilities are"
            " those at 1: weights would be wrong; collect at temperature 1"
        )
    if ess < options.min_ess:
        why = "few answers have a reward and both log-probabilities"
        if num >= options.min_ess:
            why = "the adapter seldom says what was logged"
        return (
            f"effective sample size {ess:.1f} of {num} answers is below {options.min_ess:g}: {why};"
            " generate on held-out questions and verify"
        )
    return None


def _estimate(
    top_N: Floats,
    bottom_N: Floats,
    question_N: NDArray[np.int_],
    options: EstimateOptions,
    seed: int,
) -> dict[str, Any]:
    """sum(top) / sum(bottom), and its interval: a question brings all of its answers with it."""
    sums_2X = np.stack([np.bincount(question_N, v) for v in (top_N, bottom_N)]).astype(np.float64)
    interval = bootstrap_interval(sums_2X, _ratio, options.confidence, options.num_resamples, seed)
    return {"value": float(_ratio(sums_2X)), "ci": interval}


def _ratio(sums_2X: Floats) -> Floats:
    """Of all questions in a resample; 0 where it holds none with a weight."""
    top, bottom = sums_2X.sum(-1)
    return top / np.maximum(bottom, np.finfo(np.float64).tiny)
