"""Stage 4, targets: the central problem. Fairness, consistency and KL meet here, and only here.

    maximise over q:  J(q) = W(U) - lambda E_{x in truth} D(p_1x .. p_Gx)
                             - beta sum_g w_g E_x KL(q_gx || mu_gx)

Source: our formulation (the README says what TriAlign's paper leaves open). W concave, D convex and
KL convex: one global optimum, found on the log before anything is trained.

Shapes: J objectives, G groups, P players, X questions, K candidates.
"""

import math
from dataclasses import dataclass
from typing import Required, TypedDict, Unpack

import torch
from torch import Tensor

from trialign_ray.central.price import least_price
from trialign_ray.central.problem import Problem, checked_problem
from trialign_ray.central.rank_linear import rank_linear, solve_rank_linear
from trialign_ray.central.smooth import Optimum, Prices, Start, solve_smooth
from trialign_ray.errors import ConfigError, ConvergenceError, DataError, ShapeError
from trialign_ray.ops.inconsistency import Penalty
from trialign_ray.ops.welfare import Welfare

MAX_ITERATIONS = 20_000
TRIAL_TOLERANCE = 1e-3
"""Tolerance of trial solutions in units of the caller's: J is of second order in an error of q, the
inconsistency, on which the search for its price turns, of first."""


class CentralOptions(TypedDict, total=False):
    """The options of `solve_central` other than the penalty's weight and the start."""

    welfare: Required[Welfare]
    penalty: Required[Penalty]
    kl_weight: Required[float]
    weights_G: Tensor | None
    candidate_mask_GXK: Tensor | None
    player_present_JG: Tensor | None
    tol: float


@dataclass(frozen=True)
class CentralSolution:
    """The optimum and what it is worth.

    policy_GXK: target distributions q. utility_G: returns U, shape (G,), or (J, G) for J
    objectives. credit_G: dW/dU, same shape; at a kink of W the one that makes q optimal.
    inconsistency: E over truth questions of D. gap: upper bound on the distance of the objective
    from its maximum (`ops.mirror`). objective: J(q).
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
    initial_GXK: Tensor | None = None,
    initial_credit_G: Tensor | None = None,
) -> CentralSolution:
    """The maximiser of the central problem, in float64, with a certificate.

    Args:
        q_value_GXK: returns of candidates, shape (G, X, K); the welfare's players are the groups.
            Shape (J, G, X, K) makes every (objective, group) a player of weight w_g / J.
        reference_GXK: mu >= 0; rows are normalised over the candidates that the mask keeps. Another
            policy than the log's makes that the prox centre.
        answer_GXK: id of the canonical answer per question, >= 0; -1 for no truth answer. Within a
            truth question all -1 count as one more answer.
        is_truth_X: bool; the penalty is averaged over these questions alone.
        penalty_weight: lambda >= 0. kl_weight: beta > 0. weights_G: >= 0; equal if None; weight 0
            or no candidate anywhere makes a group absent.
        candidate_mask_GXK: bool, False for padding. player_present_JG: bool, in the shape of the
            players, False for one whose returns nobody knows; it is masked, not counted as 0.
        tol: relative, for gap <= tol * |J|. initial_GXK, initial_credit_G: where to start, say
            policy and credit of a neighbouring setting; the reference and equal credit if None.
            They change the time, not the answer; the credit matters for a welfare with kinks alone.
    Raises: ShapeError, ConfigError, DataError; ConvergenceError without the certificate.
    """
    _check_prices(penalty_weight, kl_weight, tol)
    problem = checked_problem(
        q_value_GXK,
        reference_GXK,
        answer_GXK,
        is_truth_X,
        candidate_mask_GXK,
        weights_G,
        player_present_JG,
    )
    start = _checked_start(initial_GXK, initial_credit_G, problem)
    prices = Prices(penalty, penalty_weight, kl_weight)
    ranked = rank_linear(welfare)
    if ranked is None:
        optimum = solve_smooth(problem, welfare, prices, tol, MAX_ITERATIONS, start.q_GXK)
        _check_concave(optimum.utility_P[problem.present_P], welfare)
    else:
        optimum = solve_rank_linear(problem, ranked, prices, tol, MAX_ITERATIONS, start)
    _check_certificate(optimum, tol)
    return _solution(problem, optimum, penalty)


def solve_to_inconsistency(
    q_value_GXK: Tensor,
    reference_GXK: Tensor,
    answer_GXK: Tensor,
    is_truth_X: Tensor,
    *,
    target_inconsistency: float,
    max_penalty_weight: float = 1e3,
    **options: Unpack[CentralOptions],
) -> tuple[CentralSolution, float]:
    """The solution of least lambda whose inconsistency is at most the target, and that lambda.

    Dual ascent on lambda (`central.price`), each trial started from the one before. lambda is 0
    where the unpenalised solution is consistent enough, else exact to 1e-3 in itself or in the
    inconsistency. Args: target_inconsistency: >= 0, in the penalty's units. max_penalty_weight: the
    largest lambda tried. The others as for `solve_central`; trials are solved to tol / 1000.
    Raises: as `solve_central`; ConvergenceError also where no lambda allowed reaches the target.
    """
    if not target_inconsistency >= 0 or not max_penalty_weight >= 0:
        raise ConfigError(
            f"target inconsistency is {target_inconsistency} and the largest penalty weight "
            f"{max_penalty_weight}; expected both >= 0"
        )
    trial_options = options.copy()
    trial_options["tol"] = TRIAL_TOLERANCE * options.get("tol", 1e-4)

    def solve(penalty_weight: float, near: CentralSolution | None) -> CentralSolution:
        return solve_central(
            q_value_GXK,
            reference_GXK,
            answer_GXK,
            is_truth_X,
            penalty_weight=penalty_weight,
            initial_GXK=None if near is None else near.policy_GXK,
            initial_credit_G=None if near is None else near.credit_G,
            **trial_options,
        )

    return least_price(solve, target_inconsistency, options["kl_weight"], max_penalty_weight)


def _solution(problem: Problem, optimum: Optimum, penalty: Penalty) -> CentralSolution:
    return CentralSolution(
        policy_GXK=optimum.q_GXK,
        utility_G=optimum.utility_P.reshape(problem.players),
        credit_G=optimum.credit_P.reshape(problem.players),
        inconsistency=float(problem.inconsistency(optimum.q_GXK, penalty)[0]),
        gap=optimum.gap,
        num_iterations=optimum.num_iterations,
        objective=optimum.objective,
    )


def _check_prices(penalty_weight: float, kl_weight: float, tol: float) -> None:
    if not 0 <= penalty_weight < math.inf or not 0 < kl_weight < math.inf:
        raise ConfigError(
            f"targets.penalty_weight is {penalty_weight} and targets.kl_weight is {kl_weight}; "
            "expected penalty_weight >= 0 and kl_weight > 0 (without a KL term the targets would "
            "leave what the log supports)"
        )
    if not 0 < tol < math.inf:
        raise ConfigError(f"targets.tolerance is {tol}; expected a relative error > 0, say 1e-4")


def _checked_start(q_GXK: Tensor | None, credit_G: Tensor | None, problem: Problem) -> Start:
    shape = problem.reference_GXK.shape
    if q_GXK is not None and q_GXK.shape != shape:
        raise ShapeError(f"initial policy {tuple(q_GXK.shape)}: expected {tuple(shape)}")
    if credit_G is not None and credit_G.shape != problem.players:
        raise ShapeError(
            f"initial credit {tuple(credit_G.shape)}: expected {tuple(problem.players)}"
        )
    for name, start in (("policy", q_GXK), ("credit", credit_G)):
        if start is not None and not bool((start >= 0).all() and torch.isfinite(start).all()):
            raise DataError(f"the initial {name} has a negative, infinite or NaN entry; pass None")
    return Start(
        None if q_GXK is None else q_GXK.double(),
        None if credit_G is None else credit_G.double().flatten(),
    )


def _check_certificate(optimum: Optimum, tol: float) -> None:
    if not optimum.gap <= optimum.wanted_gap:
        raise ConvergenceError(
            f"the central problem is certified to a gap of {optimum.gap:.3g} only, after "
            f"{optimum.num_iterations} iterations (objective {optimum.objective:.6g}, wanted "
            f"{tol:g} of it); raise targets.kl_weight or targets.tolerance"
        )


def _check_concave(utility_P: Tensor, welfare: Welfare) -> None:
    least = float(utility_P.min())
    if least < welfare.concave_from:
        raise ConvergenceError(
            f"a player's return is {least:.3g}, below {welfare.concave_from:g}, where {welfare} is "
            "not concave and the certificate does not hold; use targets.welfare=log_nash"
        )
