"""Off-policy evaluation: what another policy would earn, from a log that it did not write.

Episodes may end early. After an episode's end its log-probabilities, rewards and values are 0: the
weight is carried on unchanged, and nothing more is earned. One-step data (a contextual bandit) is
the case of one turn, and may leave the axis T out.

Shapes: N logged episodes, T turns, D features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trialign_ray.errors import ConfigError, ConvergenceError, DataError, ShapeError

Floats = NDArray[np.float64]
MAX_LOG = np.log(np.finfo(np.float64).max)


@dataclass(frozen=True)
class ImportanceWeights:
    """weight_NT: probability of the episode so far under the new policy over that under the old.
    num_clipped: how many of them a bound has lowered; any clipping biases the estimates."""

    weight_NT: Floats
    num_clipped: int


def importance_weights(
    new_logprob_NT: Floats, behaviour_logprob_NT: Floats, max_weight: float | None = None
) -> ImportanceWeights:
    """Cumulative weights w_nt = prod_{s <= t} pi(a_ns | h_ns) / mu(a_ns | h_ns).

    Source: Precup, Sutton and Singh 2000, "Eligibility traces for off-policy policy evaluation".
    Args: new_logprob_NT, behaviour_logprob_NT: log-probabilities of the logged actions, in nats;
    the new one may be -inf. max_weight: upper bound > 0 of a weight; None: no bound.
    Returns: weights in the shape given. Raises: ShapeError, ConfigError, DataError.
    """
    new_NT, old_NT = _aligned(
        new_logprob=new_logprob_NT, behaviour_logprob=behaviour_logprob_NT
    ).values()
    if max_weight is not None and not max_weight > 0:
        raise ConfigError(f"max_weight is {max_weight}; expected a bound > 0, or None for no bound")
    if not (np.isfinite(old_NT).all() and (new_NT < np.inf).all()):
        raise DataError(
            "log-probabilities hold NaN or infinities; expected finite ones under the behaviour "
            "policy (it took these actions) and finite or -inf ones under the new policy"
        )
    log_weight_NT = np.cumsum(new_NT - old_NT, -1)
    if (log_weight_NT > MAX_LOG).any():
        raise DataError(
            f"the largest log-weight is {log_weight_NT.max():.0f}, beyond exp's range: the "
            "policies are too far apart to weigh; generate with the new policy and verify instead"
        )
    weight_NT = np.exp(log_weight_NT).reshape(np.shape(new_logprob_NT))
    if max_weight is None:
        return ImportanceWeights(weight_NT, 0)
    return ImportanceWeights(np.minimum(weight_NT, max_weight), int((weight_NT > max_weight).sum()))


def effective_sample_size(weight_N: Floats) -> float:
    """ESS = (sum w)^2 / sum w^2, in [1, N]; 0 where every weight is 0.

    Source: Kong 1992, "A note on importance sampling using standardized weights". The scale of the
    weights does not matter. For several turns pass the weights of the last one, the hardest.
    """
    weight_N = np.asarray(weight_N, dtype=np.float64)
    largest = weight_N.max(initial=0.0)
    if not largest > 0:
        return 0.0
    scaled_N = weight_N / largest  # squares of large weights would overflow
    return float(scaled_N.sum() ** 2 / (scaled_N**2).sum())


def importance_sampling(weight_NT: Floats, reward_NT: Floats, discount: float = 1.0) -> float:
    """IS = mean_n sum_t gamma^t w_nt r_nt: unbiased, of high variance (Precup et al. 2000)."""
    weight_NT, reward_NT = _aligned(weight=weight_NT, reward=reward_NT).values()
    return float((weight_NT * reward_NT).mean(0) @ _powers(discount, reward_NT))


def self_normalized(weight_NT: Floats, reward_NT: Floats, discount: float = 1.0) -> float:
    """WIS = sum_t gamma^t sum_n w_nt r_nt / sum_n w_nt: biased, consistent, inside the rewards.

    Source: Precup et al. 2000; per decision as in Thomas 2015, "Safe reinforcement learning"
    (CWPDIS). Returns: nan where the new policy takes none of the logged actions.
    """
    weight_NT, reward_NT = _aligned(weight=weight_NT, reward=reward_NT).values()
    total_T = weight_NT.sum(0)
    if not (total_T > 0).all():
        return float("nan")
    return float((weight_NT * reward_NT).sum(0) / total_T @ _powers(discount, reward_NT))


def direct_method(value_NT: Floats) -> float:
    """DM = mean_n V(s_n0), with V(s) = sum_a pi(a | s) Q(s, a): no variance of weights, but all of
    the bias of Q."""
    return float(_aligned(value=value_NT)["value"][:, 0].mean())


def doubly_robust_terms(
    weight_NT: Floats, reward_NT: Floats, q_NT: Floats, value_NT: Floats, discount: float = 1.0
) -> Floats:
    """Each episode's term of the doubly robust estimate, shape (N,).

    DR_n = sum_t gamma^t [w_n,t-1 V(s_nt) + w_nt (r_nt - Q(s_nt, a_nt))], w_n,-1 = 1: unbiased if
    either the weights or Q are right. Source: Jiang and Li 2016, arXiv 1511.03722, section 4; the
    recursion is unrolled here.
    Args: q_NT: Q of the logged actions. value_NT: V(s) = sum_a pi(a | s) Q(s, a) of the new policy.
    """
    parts = _aligned(weight=weight_NT, reward=reward_NT, q=q_NT, value=value_NT)
    weight_NT, reward_NT, q_NT, value_NT = parts.values()
    before_NT = np.concatenate([np.ones_like(weight_NT[:, :1]), weight_NT[:, :-1]], 1)
    terms_NT = before_NT * value_NT + weight_NT * (reward_NT - q_NT)
    return terms_NT @ _powers(discount, reward_NT)


def doubly_robust(
    weight_NT: Floats, reward_NT: Floats, q_NT: Floats, value_NT: Floats, discount: float = 1.0
) -> float:
    """DR, the mean of `doubly_robust_terms`."""
    return float(doubly_robust_terms(weight_NT, reward_NT, q_NT, value_NT, discount).mean())


@dataclass(frozen=True)
class FittedQ:
    """A linear Q(s, a) = phi(s, a) . weight_D, and what it took to find it."""

    weight_D: Floats
    num_iterations: int

    def value(self, features_ND: Floats) -> Floats:
        """Q of features phi(s, a); V of features averaged over the policy's actions, shape (N,)."""
        return np.asarray(features_ND, dtype=np.float64) @ self.weight_D


def fitted_q_evaluation(
    features_ND: Floats,
    reward_N: Floats,
    next_features_ND: Floats,
    terminated_N: NDArray[np.bool_],
    *,
    discount: float = 1.0,
    ridge: float = 1e-6,
    max_iterations: int = 1000,
    tol: float = 1e-10,
) -> FittedQ:
    """Q of a fixed policy, by regression on y = r + gamma (1 - terminated) V'(s') until it stands.

    Source: Le, Voloshin and Yue 2019, arXiv 1903.08738, algorithm 3. Q is linear, so V'(s') is Q of
    the averaged features; each fit is ridge regression, min ||phi w - y||^2 + ridge ||w||^2. With
    one-hot features it is tabular; T turns then need T iterations, and one more to see it.
    Args: features_ND: phi(s, a) of logged transitions. next_features_ND: sum_a' pi(a' | s')
    phi(s', a'), any finite value where terminated. ridge: > 0, in squared feature units times N.
    Raises: ShapeError, ConfigError, ConvergenceError where it has not settled: off the log's
    distribution the iteration may diverge.
    """
    phi_ND, next_ND = _features(features_ND, next_features_ND, reward_N, terminated_N)
    if not ridge > 0:
        raise ConfigError(f"ridge is {ridge}; expected > 0, so that unseen features get value 0")
    reward_N = np.asarray(reward_N, dtype=np.float64)
    alive_N = 1.0 - np.asarray(terminated_N, dtype=np.float64)
    regress_DN = np.linalg.solve(phi_ND.T @ phi_ND + ridge * np.eye(phi_ND.shape[1]), phi_ND.T)
    carry_DD = discount * regress_DN @ (alive_N[:, None] * next_ND)
    return _fixed_point(regress_DN @ reward_N, carry_DD, max_iterations, tol)


def _fixed_point(constant_D: Floats, carry_DD: Floats, max_iterations: int, tol: float) -> FittedQ:
    weight_D, change, iteration = np.zeros_like(constant_D), np.inf, 0
    while iteration < max_iterations and np.isfinite(weight_D).all():
        iteration += 1
        with np.errstate(over="ignore", invalid="ignore"):  # divergence is reported below
            new_D = constant_D + carry_DD @ weight_D
            change = float(np.abs(new_D - weight_D).max(initial=0.0))
        weight_D = new_D
        scale = max(1.0, float(np.abs(weight_D).max(initial=0.0)))
        if np.isfinite(change) and change <= tol * scale:
            return FittedQ(weight_D, iteration)
    raise ConvergenceError(
        f"fitted Q evaluation still changes by {change:.3g} after {iteration} iterations, tol "
        f"{tol}; raise max_iterations if it shrinks, else raise ridge, lower the discount or use "
        "fewer features"
    )


def _features(
    features_ND: Floats, next_ND: Floats, reward_N: Floats, terminated_N: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    phi_ND = np.asarray(features_ND, dtype=np.float64)
    following_ND = np.asarray(next_ND, dtype=np.float64)
    shapes = [phi_ND.shape, following_ND.shape, np.shape(reward_N), np.shape(terminated_N)]
    if phi_ND.ndim != 2 or shapes != [phi_ND.shape, phi_ND.shape, *[phi_ND.shape[:1]] * 2]:
        raise ShapeError(
            f"features, next features, rewards and ends have shapes {shapes}; expected (N, D), "
            "(N, D), (N,) and (N,) with one row per transition"
        )
    return phi_ND, following_ND


def _aligned(**arrays: Floats) -> dict[str, Floats]:
    """The arrays as float64 of one shape (N, T), T = 1 where it is left out; N >= 1."""
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    shape = next(iter(shapes.values()))
    if len(set(shapes.values())) > 1 or len(shape) not in (1, 2) or 0 in shape:
        raise ShapeError(f"shapes {shapes}: expected one shape (N,) or (N, T) for all, N, T >= 1")
    two_axes = (*shape, 1)[:2]
    return {n: np.asarray(a, dtype=np.float64).reshape(two_axes) for n, a in arrays.items()}


def _powers(discount: float, array_NT: Floats) -> Floats:
    return discount ** np.arange(array_NT.shape[1])
