"""Stage 3d, the dialogue's values: candidates as first answers, and what they do to peers.

Shapes: N joint turns, G groups, X questions, K candidates (padded).
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trialign_ray.candidates import JointQuestion
from trialign_ray.critic import CandidateTensors
from trialign_ray.dialogue_features import (
    Beliefs,
    DialogueEncoder,
    RewardWeights,
    dialogue_transitions,
)
from trialign_ray.errors import DataError
from trialign_ray.values import ValueConfig, Values, fit_values

BELIEVED = 0.5
"""An answer counts as the truth where its belief is at least this."""


def turn_zero_values(
    values: Values,
    questions: Sequence[JointQuestion],
    tensors: CandidateTensors,
    encoder: DialogueEncoder,
    weights: RewardWeights,
) -> Tensor:
    """Q of every candidate as its group's first answer, shape (G, X, K).

    NaN for padding and where no reward of the candidate is known. At discount 0 it is the reward.
    Args: questions: those of `tensors`, with borrowed candidates if it has them.
    """
    num_groups, num_questions, width = tensors.mask_GXK.shape
    num_actions = len(encoder.action(questions[0].id, encoder.groups[0], "", None, {}))
    action_XKGA = torch.zeros(num_questions, width, num_groups, num_actions)
    for x, question in enumerate(questions):
        for g, group in enumerate(encoder.groups):
            view = question.views.get(group)
            for k, c in enumerate(view.candidates if view else ()):
                action_XKGA[x, k, g] = torch.tensor(
                    encoder.action(question.id, group, c.answer, c.personalization, {})
                )
    state_XGS = torch.stack([encoder.states(q.id, {}, 0) for q in questions])
    state_XKGS = state_XGS.unsqueeze(1).expand(-1, width, -1, -1)
    reward_GXK = candidate_rewards(tensors, weights)
    future_XKG = values.continuation(state_XKGS, action_XKGA)
    return reward_GXK + future_XKG.permute(2, 0, 1)


def candidate_rewards(tensors: CandidateTensors, weights: RewardWeights) -> Tensor:
    """(w_T T + w_P P) / (weights of what is known), NaN where nothing is, shape (G, X, K)."""
    value = torch.stack([tensors.truth_GXK, tensors.personalization_GXK])
    weight = torch.tensor([weights.truth, weights.personalization]).reshape(2, 1, 1, 1)
    known = (~value.isnan() & tensors.mask_GXK) * weight
    return (value.nan_to_num() * known).sum(0) / known.sum(0)  # 0 / 0 is NaN: nothing known


def multi_turn_tensors(
    tensors: CandidateTensors,
    rows: Sequence[dict[str, Any]],
    questions: Sequence[JointQuestion],
    groups: Sequence[str],
    beliefs: Beliefs,
    config: ValueConfig,
    seed: int,
) -> CandidateTensors:
    """`tensors` with Q of truth and Q of personalization in place of both rewards.

    Each is divided by 1 + gamma + ... over the log's turns, so that it stays a mean per turn on
    the scale of the reward and `targets.kl_weight` keeps its meaning. At discount 0 the tensors
    come back as they are.
    """
    if config.discount == 0:
        return tensors
    encoder = DialogueEncoder(questions, groups, beliefs, count_turns(rows))
    horizon = sum(config.discount**t for t in range(encoder.num_turns))

    def q_of(weights: RewardWeights, reward_GXK: Tensor) -> Tensor:
        if bool(reward_GXK.isnan().all()):
            return reward_GXK
        values = fit_values(dialogue_transitions(rows, encoder, weights), config, seed)
        return turn_zero_values(values, questions, tensors, encoder, weights) / horizon

    return replace(
        tensors,
        truth_GXK=q_of(RewardWeights(1.0, 0.0), tensors.truth_GXK),
        personalization_GXK=q_of(RewardWeights(0.0, 1.0), tensors.personalization_GXK),
    )


def count_turns(rows: Sequence[dict[str, Any]]) -> int:
    """Turns of the longest episode. Raises: DataError if the log has no rows."""
    if not rows:
        raise DataError("the log has no rows; collect at least one episode")
    return max(row["turn"] for row in rows) + 1


def externality(
    rows: Sequence[dict[str, Any]],
    questions: Sequence[JointQuestion],
    groups: Sequence[str],
    beliefs: Beliefs,
    config: ValueConfig,
    seed: int,
    weights: RewardWeights | None = None,
) -> dict[str, dict[str, float]]:
    """E[peers' reward at turn 1 | I said the truth at turn 0] - E[... | I said something else].

    Per group three estimates: `unmatched`, a difference of means, which mistakes easy questions
    for influence; `matched`, the same within each question where the group said both, weighted by
    n1 n0 / (n1 + n0), with its standard error over questions; `from_q`, matched alike, but with
    the value of each first answer to the peers (credit "peers", mean instead of expectile,
    discount 1) in place of what happened. NaN where no question has both. "Truth" is a belief of
    at least 1/2, so that the figure is as good as the truth head.
    Args: weights: of the peers' reward; None: truth alone.
    """
    weights = weights or RewardWeights(1.0, 0.0)
    opened = _first_two_turns(rows)
    encoder = DialogueEncoder(questions, groups, beliefs, 2)
    transitions = dialogue_transitions(opened, encoder, weights)
    evaluation = replace(config, credit="peers", expectile=0.5, discount=1.0)
    values = fit_values(transitions, evaluation, seed)
    future_NG = values.continuation(transitions.state_NGS, transitions.action_NGA)
    result = {}
    for g, group in enumerate(groups):
        peers = [h for h in range(len(groups)) if h != g]
        happened, expected = [], []
        for n in range(0, len(opened), 2):
            outcome = float(transitions.reward_NG[n + 1, peers].nanmean())
            said = _said_truth(opened[n], group, encoder)
            if said is not None and not math.isnan(outcome):
                happened.append((opened[n]["question_id"], said, outcome))
                expected.append((opened[n]["question_id"], said, float(future_NG[n, g])))
        matched, error, num_questions = _matched_difference(happened)
        result[group] = {
            "from_q": _matched_difference(expected)[0],
            "matched": matched,
            "matched_standard_error": error,
            "unmatched": _difference([(said, y) for _, said, y in happened]),
            "num_questions": float(num_questions),
        }
    return result


def _first_two_turns(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns 0 and 1 of every episode that has both, one after the other; turn 1 is the end."""
    turns = {(r["episode_id"], r["turn"]): r for r in rows}
    episodes = sorted(e for e, turn in turns if turn == 1 and (e, 0) in turns)
    if not episodes:
        raise DataError("no episode has turns 0 and 1, so nobody heard a peer; raise collect.turns")
    return [turns[e, turn] | {"terminated": turn == 1} for e in episodes for turn in (0, 1)]


def _said_truth(row: dict[str, Any], group: str, encoder: DialogueEncoder) -> bool | None:
    """Whether the group's answer is believed; None where it was absent or nobody can say."""
    place = row["group_ids"].index(group)
    if not row["present"][place]:
        return None
    truth = encoder.truth(row["question_id"], row["parsed_answer"][place])
    return None if truth is None else truth >= BELIEVED


def _difference(pairs: Sequence[tuple[bool, float]]) -> float:
    """Mean outcome where the truth was said minus that where it was not; NaN if one is missing."""
    outcome = torch.tensor([y for _, y in pairs], dtype=torch.float64)
    said = torch.tensor([s for s, _ in pairs], dtype=torch.bool)
    return float(outcome[said].mean() - outcome[~said].mean())


def _matched_difference(entries: Sequence[tuple[str, bool, float]]) -> tuple[float, float, int]:
    """Weighted mean of the differences within questions, its standard error, and their number.

    weights n1 n0 / (n1 + n0) are those of least variance under equal noise (Cochran 1954).
    """
    strata: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for question_id, said, outcome in entries:
        strata[question_id].append((said, outcome))
    both = [s for s in strata.values() if len({said for said, _ in s}) == 2]
    counts = [(sum(said for said, _ in s), len(s)) for s in both]
    weight = torch.tensor([n1 * (n - n1) / n for n1, n in counts], dtype=torch.float64)
    difference = torch.tensor([_difference(s) for s in both], dtype=torch.float64)
    share = weight / weight.sum()
    mean = float((share * difference).sum()) if both else float("nan")
    error = float((share * (difference - mean)).square().sum().sqrt()) if both else float("nan")
    return mean, error, len(both)
