"""The central problem as linear algebra: players' returns and answer distributions of a policy.

Shapes: J objectives, G groups, P = J * G players (objective-major), X questions, T questions with a
truth, K candidates, Y canonical answers of a question.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trialign_ray.central.slopes import penalty_with_slope
from trialign_ray.errors import DataError, ShapeError
from trialign_ray.ops.inconsistency import Penalty
from trialign_ray.ops.welfare import present_weights


@dataclass(frozen=True)
class Problem:
    """What every evaluation needs, in float64.

    value_JGXK: returns over the group's number of questions, 0 for padding, so that their sum
    against q is the player's return. reference_GXK: mu, rows sum to 1 or are 0. truth_T: indices of
    truth questions. answer_GTK: their answers, in 0 .. num_answers - 1. weights_TG: 0 for a group
    absent from the question. kl_scale_GX: w_g / X_g, the weight of one KL term; 1 where there is
    none. players: the shape of the players, (G,) or (J, G).
    """

    value_JGXK: Tensor
    reference_GXK: Tensor
    truth_T: Tensor
    answer_GTK: Tensor
    num_answers: int
    weights_TG: Tensor
    kl_scale_GX: Tensor
    weights_P: Tensor
    present_P: Tensor
    players: torch.Size

    def utility(self, q_GXK: Tensor) -> Tensor:
        """U of every player: mean over the group's questions of sum_k q v, shape (P,)."""
        return torch.einsum("gxk,jgxk->jg", q_GXK, self.value_JGXK).flatten()

    def utility_gradient(self, credit_P: Tensor) -> Tensor:
        """sum_p c_p dU_p/dq, shape (G, X, K)."""
        credit_JG = credit_P.view(self.value_JGXK.shape[:2])
        return torch.einsum("jg,jgxk->gxk", credit_JG, self.value_JGXK)

    def inconsistency(self, q_GXK: Tensor, penalty: Penalty) -> tuple[Tensor, Tensor]:
        """E over truth questions of D(p_1x .. p_Gx), and its gradient in q, shape (G, X, K)."""
        gradient = torch.zeros_like(q_GXK)
        num_truth = len(self.truth_T)
        if num_truth == 0:
            return q_GXK.new_zeros(()), gradient
        p_GTY = q_GXK.new_zeros(len(q_GXK), num_truth, self.num_answers)
        p_GTY.scatter_add_(-1, self.answer_GTK, q_GXK.index_select(1, self.truth_T))
        d_T, slope_TGY = penalty_with_slope(penalty, p_GTY.transpose(0, 1), self.weights_TG)
        slope_GTK = slope_TGY.transpose(0, 1).gather(-1, self.answer_GTK)
        return d_T.mean(), gradient.index_copy_(1, self.truth_T, slope_GTK / num_truth)


def checked_problem(
    value: Tensor,
    reference_GXK: Tensor,
    answer_GXK: Tensor,
    is_truth_X: Tensor,
    mask_GXK: Tensor | None,
    weights_G: Tensor | None,
    player_present_JG: Tensor | None,
) -> Problem:
    """Masks, normalises and refuses. Raises: ShapeError, DataError, ConfigError."""
    mask = torch.ones_like(reference_GXK, dtype=torch.bool) if mask_GXK is None else mask_GXK
    _check_shapes(value, reference_GXK, answer_GXK, is_truth_X, mask)
    value_JGXK = value.double().reshape(-1, *reference_GXK.shape)
    reference = torch.where(mask, reference_GXK.double(), 0.0)
    _check_numbers(value_JGXK, reference, mask)
    present_GX = mask.any(-1)
    weights = present_weights(
        torch.ones(len(reference), dtype=torch.float64), weights_G, present_GX.any(-1)
    )
    present_GX = present_GX & (weights > 0).unsqueeze(-1)
    num_questions_G = present_GX.sum(-1).clamp_min(1).double()
    scale_GX = (weights / num_questions_G).unsqueeze(-1)
    truth_T = is_truth_X.nonzero().squeeze(-1)
    num_answers = int(answer_GXK.max()) + 2
    answer = torch.where(mask & (answer_GXK >= 0), answer_GXK, num_answers - 1)
    return Problem(
        value_JGXK=torch.where(mask, value_JGXK, 0.0) / num_questions_G[:, None, None],
        reference_GXK=reference / reference.sum(-1, keepdim=True).clamp_min(1e-300),
        truth_T=truth_T,
        answer_GTK=answer.index_select(1, truth_T),
        num_answers=num_answers,
        weights_TG=(present_GX * weights.unsqueeze(-1)).T[truth_T],
        kl_scale_GX=torch.where(present_GX, scale_GX, 1.0),
        weights_P=weights.repeat(len(value_JGXK)),
        present_P=_present_players(weights, player_present_JG, value.shape[:-2]),
        players=value.shape[:-2],
    )


def _present_players(weights_G: Tensor, known: Tensor | None, players: torch.Size) -> Tensor:
    """Which players count: of a group of positive weight, with returns that somebody knows."""
    present = (weights_G > 0).expand(players)
    if known is not None:
        if known.shape != players:
            raise ShapeError(
                f"player_present {tuple(known.shape)}: expected one bool per player, "
                f"{tuple(players)}"
            )
        present = present & known
    if not bool(present.any()):
        raise DataError(
            "no player of positive weight has known returns, so there is nothing to maximise; "
            "verify some answers or add a preference scorer"
        )
    return present.flatten()


def _check_shapes(
    value: Tensor, reference: Tensor, answer: Tensor, is_truth: Tensor, mask: Tensor
) -> None:
    shape = reference.shape
    if len(shape) != 3 or 0 in shape or value.shape[-3:] != shape or value.ndim not in (3, 4):
        raise ShapeError(
            f"returns {tuple(value.shape)} and reference {tuple(shape)}: expected (G, X, K) or "
            "(J, G, X, K), and (G, X, K), none of them 0"
        )
    if answer.shape != shape or mask.shape != shape or is_truth.shape != shape[1:2]:
        raise ShapeError(
            f"answers {tuple(answer.shape)}, mask {tuple(mask.shape)}, is_truth "
            f"{tuple(is_truth.shape)}: expected {tuple(shape)} twice and ({shape[1]},)"
        )


def _check_numbers(value_JGXK: Tensor, reference: Tensor, mask: Tensor) -> None:
    if not bool((torch.isfinite(value_JGXK) | ~mask).all()):
        raise DataError("a candidate's return is NaN or infinite; mask candidates without a return")
    present_GX = mask.any(-1)
    if not bool(present_GX.any()):
        raise DataError(
            "no candidate of any group has a return: no answer of the log is verified, believed"
            " or rated. Look at what the agents say; raise collect.max_new_tokens if answers are"
            " cut, collect.label_fraction if none is verified, or add a scorer to preferences"
        )
    total_GX = reference.sum(-1)
    supported = (total_GX > 0) & torch.isfinite(total_GX) & (reference >= 0).all(-1)
    if not bool((supported | ~present_GX).all()):
        raise DataError(
            "reference: every row with candidates needs mu >= 0 and finite with a positive sum"
        )
