"""Stage 4, targets: the central problem. Fairness, consistency and KL meet here, and only here.

    maximise over q:  J(q) = W(U) - lambda E_{x in truth} D(p_1x .. p_Gx)
                             - beta sum_g w_g E_x KL(q_gx || mu_gx)

Source: our formulation (the README says what TriAlign's paper leaves open). W concave, D convex and
KL convex: one global optimum, found on the log before anything is trained.

Shapes: J objectives, G groups, X questions, K candidates, Y canonical answers of a question.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trialign_ray.errors import ConfigError, ConvergenceError, DataError, ShapeError
from trialign_ray.ops.inconsistency import Penalty
from trialign_ray.ops.mirror import MIN_GAP, mirror_ascent
from trialign_ray.ops.welfare import Welfare, present_weights

MAX_ITERATIONS = 20_000


@dataclass(frozen=True)
class CentralSolution:
    """The optimum and what it is worth.

    policy_GXK: target distributions q. utility_G: returns U, shape (G,), or (J, G) for J
    objectives. credit_G: dW/dU, same shape. inconsistency: E over truth questions of D.
    gap: upper bound on the distance of the objective from its maximum (`ops.mirror`).
    objective: J(q).
    """

    policy_GXK: Tensor
    utility_G: Tensor
    credit_G: Tensor
    inconsistency: float
    gap: float
    num_iterations: int
    objective: float


def solve_central(
    q_value_GXK: Tensor,
    reference_GXK: Tensor,
    answer_GXK: Tensor,
    is_truth_X: Tensor,
    *,
    welfare: Welfare,
    penalty: Penalty,
    penalty_weight: float,
    kl_weight: float,
    weights_G: Tensor | None = None,
    candidate_mask_GXK: Tensor | None = None,
    player_present_JG: Tensor | None = None,
    tol: float = 1e-4,
) -> CentralSolution:
    """The maximiser of the central problem, in float64, with a certificate.

    Args:
        q_value_GXK: returns of candidates, shape (G, X, K); the welfare's players are the groups.
            Shape (J, G, X, K) makes every (objective, group) a player of weight w_g / J.
        reference_GXK: mu >= 0; rows are normalised over the candidates that the mask keeps.
        answer_GXK: id of the canonical answer per question, >= 0; -1 for no truth answer. Within a
            truth question all -1 count as one more answer.
        is_truth_X: bool; the penalty is averaged over these questions alone.
        penalty_weight: lambda >= 0. kl_weight: beta > 0. weights_G: >= 0; equal if None; weight 0
            or no candidate anywhere makes a group absent.
        candidate_mask_GXK: bool, False for padding. player_present_JG: bool, False for a player
            whose returns nobody knows; it is masked, not counted as 0.
        tol: relative, for gap <= tol * |J|.
    Raises: ShapeError, ConfigError, DataError; ConvergenceError without the certificate.
    """
    problem, reference = _checked_problem(
        q_value_GXK, reference_GXK, answer_GXK, is_truth_X, candidate_mask_GXK, weights_G
    )
    if player_present_JG is not None:
        problem = replace(problem, player_present_JG=player_present_JG)
    if penalty_weight < 0 or not kl_weight > 0:
        raise ConfigError(
            f"targets.penalty_weight is {penalty_weight} and targets.kl_weight is {kl_weight}; "
            "expected penalty_weight >= 0 and kl_weight > 0 (without a KL term the targets would "
            "leave what the log supports)"
        )

    def value_and_gradient(q_GXK: Tensor) -> tuple[Tensor, Tensor]:
        utility_P = problem.utility(q_GXK)
        value = welfare.value(utility_P, problem.weights_P, problem.present_P)
        gradient = problem.utility_gradient(_credit(problem, utility_P, welfare))
        if penalty_weight == 0:
            return value, gradient
        inconsistency, slope = problem.inconsistency(q_GXK, penalty)
        return value - penalty_weight * inconsistency, gradient - penalty_weight * slope

    result = mirror_ascent(
        value_and_gradient, reference, kl_weight * problem.kl_scale_GX, tol, MAX_ITERATIONS
    )
    if not result.gap <= max(tol * abs(result.objective), MIN_GAP):
        raise ConvergenceError(
            f"the central problem is certified to a gap of {result.gap:.3g} only, after "
            f"{result.num_iterations} iterations (objective {result.objective:.6g}, wanted "
            f"{tol:g} of it); raise targets.kl_weight or targets.tolerance"
        )
    utility_P = problem.utility(result.q_GXK)
    least = float(utility_P[problem.present_P].min())
    if least < welfare.concave_from:
        raise ConvergenceError(
            f"a player's return is {least:.3g}, below {welfare.concave_from:g}, where {welfare} is "
            "not concave and the certificate does not hold; use targets.welfare=log_nash"
        )
    players = q_value_GXK.shape[:-2]
    return CentralSolution(
        policy_GXK=result.q_GXK,
        utility_G=utility_P.reshape(players),
        credit_G=_credit(problem, utility_P, welfare).reshape(players),
        inconsistency=float(problem.inconsistency(result.q_GXK, penalty)[0]),
        gap=result.gap,
        num_iterations=result.num_iterations,
        objective=result.objective,
    )


@dataclass(frozen=True)
class _Problem:
    """The linear algebra of the problem; P = J * G players, objective-major."""

    value_JGXK: Tensor
    answer_GXK: Tensor
    num_answers: int
    truth_X: Tensor
    mask_GXK: Tensor
    present_GX: Tensor
    weights_G: Tensor
    player_present_JG: Tensor | None = None

    @property
    def num_questions_G(self) -> Tensor:
        return self.present_GX.sum(-1).clamp_min(1).double()

    @property
    def weights_P(self) -> Tensor:
        return self.weights_G.repeat(self.value_JGXK.shape[0])

    @property
    def present_P(self) -> Tensor:
        if self.player_present_JG is None:
            return self.weights_P > 0
        return (self.weights_P > 0) & self.player_present_JG.flatten()

    @property
    def kl_scale_GX(self) -> Tensor:
        """w_g / X_g, the weight of one KL term; 1 where there is none."""
        scale_G1 = (self.weights_G / self.num_questions_G).unsqueeze(-1)
        return torch.where(self.present_GX & (scale_G1 > 0), scale_G1, 1.0)

    def utility(self, q_GXK: Tensor) -> Tensor:
        """U of every player: mean over the group's questions of sum_k q v, shape (P,)."""
        total_JG = torch.einsum("gxk,jgxk->jg", q_GXK, self.value_JGXK)
        return (total_JG / self.num_questions_G).flatten()

    def utility_gradient(self, credit_P: Tensor) -> Tensor:
        """sum_p c_p dU_p/dq, shape (G, X, K)."""
        credit_JG = credit_P.reshape(self.value_JGXK.shape[:2]) / self.num_questions_G
        return torch.einsum("jg,jgxk->gxk", credit_JG, self.value_JGXK)

    def inconsistency(self, q_GXK: Tensor, penalty: Penalty) -> tuple[Tensor, Tensor]:
        """E over truth questions of D(p_1x .. p_Gx), and its gradient in q, shape (G, X, K)."""
        num_truth = int(self.truth_X.sum())
        if num_truth == 0:
            return q_GXK.new_zeros(()), torch.zeros_like(q_GXK)
        num_groups, num_questions, _ = q_GXK.shape
        p_GXY = q_GXK.new_zeros(num_groups, num_questions, self.num_answers)
        p_GXY = p_GXY.scatter_add(-1, self.answer_GXK, q_GXK).requires_grad_(True)
        weights_XG = (self.present_GX * self.weights_G.unsqueeze(-1)).T
        with torch.enable_grad():
            d_X = penalty(p_GXY.transpose(0, 1)[self.truth_X], weights_XG[self.truth_X])
            mean = d_X.sum() / num_truth
            (slope_GXY,) = torch.autograd.grad(mean, p_GXY)
        slope_GXK = slope_GXY.gather(-1, self.answer_GXK)
        return mean.detach(), torch.where(self.mask_GXK, slope_GXK, 0.0)


def _credit(problem: _Problem, utility_P: Tensor, welfare: Welfare) -> Tensor:
    return welfare.credit(utility_P, problem.weights_P, problem.present_P)


def _checked_problem(
    value: Tensor,
    reference_GXK: Tensor,
    answer_GXK: Tensor,
    is_truth_X: Tensor,
    mask_GXK: Tensor | None,
    weights_G: Tensor | None,
) -> tuple[_Problem, Tensor]:
    """Masks, normalises and refuses; returns the problem and mu."""
    shape = reference_GXK.shape
    if len(shape) != 3 or value.shape[-3:] != shape or value.ndim not in (3, 4):
        raise ShapeError(
            f"returns {tuple(value.shape)} and reference {tuple(shape)}: expected (G, X, K) or "
            "(J, G, X, K), and (G, X, K)"
        )
    mask = torch.ones(shape, dtype=torch.bool) if mask_GXK is None else mask_GXK
    if answer_GXK.shape != shape or mask.shape != shape or is_truth_X.shape != shape[1:2]:
        raise ShapeError(
            f"answers {tuple(answer_GXK.shape)}, mask {tuple(mask.shape)}, is_truth "
            f"{tuple(is_truth_X.shape)}: expected {tuple(shape)} twice and ({shape[1]},)"
        )
    value_JGXK = value.double().reshape(-1, *shape)
    if not bool(torch.isfinite(value_JGXK[mask.expand_as(value_JGXK)]).all()):
        raise DataError("a candidate's return is NaN or infinite; mask candidates without a return")
    reference = torch.where(mask, reference_GXK.double(), 0.0)
    total_GX1 = reference.sum(-1, keepdim=True)
    if bool((reference < 0).any()) or bool((mask.any(-1) & (total_GX1[..., 0] <= 0)).any()):
        raise DataError("reference: every row with candidates needs mu >= 0 with a positive sum")
    present_GX = mask.any(-1)
    if not bool(present_GX.any()):
        raise DataError("no group has a candidate on any question; collect the log again")
    weights = present_weights(
        torch.ones(shape[0], dtype=torch.float64), weights_G, present_GX.any(-1)
    )
    num_answers = int(answer_GXK.max()) + 2
    no_answer = answer_GXK.new_tensor(num_answers - 1)
    problem = _Problem(
        value_JGXK=torch.where(mask, value_JGXK, 0.0),
        answer_GXK=torch.where(mask & (answer_GXK >= 0), answer_GXK, no_answer),
        num_answers=num_answers,
        truth_X=is_truth_X,
        mask_GXK=reference > 0,
        present_GX=present_GX & (weights > 0).unsqueeze(-1),
        weights_G=weights,
    )
    return problem, reference / torch.where(total_GX1 > 0, total_GX1, 1.0)
