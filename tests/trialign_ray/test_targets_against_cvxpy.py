"""The central problem against an interior-point solver of convex programs, on small instances.

Shapes: G groups, X questions, K candidates, Y canonical answers.
"""

import itertools
from typing import Any

import cvxpy
import numpy as np
import pytest
import torch

from trialign_ray.ops.inconsistency import excess_disagreement, generalized_jsd
from trialign_ray.ops.welfare import GeneralizedGini, LogNash, PowerMean, SoftMin
from trialign_ray.targets import solve_central

cp: Any = cvxpy  # its annotations do not know its own operators
G, X, K, Y = 3, 2, 4, 3
KL_WEIGHT = 0.2


def log_nash(u, w):
    return w @ cp.log(u)


def soft_min(u, w):
    return -0.1 * cp.log_sum_exp(np.log(w) - u / 0.1)


def gini(u, w):
    """sum_gh w_g w_h min(u_g, u_h)."""
    return sum(w[g] * w[h] * cp.minimum(u[g], u[h]) for g in range(G) for h in range(G))


def cvar(u, w):
    """max over t of t - E_w (t - u)_+ / level, level .5 (Rockafellar and Uryasev 2000)."""
    threshold = cp.Variable()
    return threshold - w @ cp.pos(threshold - u) / 0.5


def maximin(u, w):
    return cp.min(u)


def jsd(p, w):
    mixture = sum(w[g] * p[g] for g in range(G))
    return sum(w[g] * cp.sum(cp.rel_entr(p[g], mixture)) for g in range(G))


def excess(p, w):
    pairs = [(g, h) for g in range(G) for h in range(G) if g != h]
    total = sum(w[g] * w[h] for g, h in pairs)
    return sum(w[g] * w[h] * cp.sum_squares(p[g] - p[h]) / 2 for g, h in pairs) / total


WELFARES = {
    "log_nash": (LogNash(), log_nash),
    "power_mean": (PowerMean(1), lambda u, w: w @ u),
    "soft_min": (SoftMin(0.1), soft_min),
    "gini": (GeneralizedGini.gini(), gini),
    "cvar": (GeneralizedGini.cvar(level=0.5), cvar),
    "maximin": (GeneralizedGini.maximin(), maximin),
    "power_mean of minus infinity": (PowerMean(-float("inf")), maximin),
}
PENALTIES = {"jsd": (generalized_jsd, jsd), "excess": (excess_disagreement, excess)}


def instance(seed):
    """Returns, mu, answers and weights; every return is well above where the logarithm is cut."""
    random = np.random.default_rng(seed)
    value = random.uniform(0.1, 1, (G, X, K)) * random.uniform(0.3, 1, (G, 1, 1))
    mu = random.dirichlet(np.ones(K), (G, X)) * 0.9 + 0.1 / K
    weights = random.dirichlet(np.ones(G)) * 0.7 + 0.3 / G
    return value, mu, random.integers(0, Y, (G, X, K)), weights


def by_interior_point(value, mu, answers, w, welfare, penalty, penalty_weight):
    q = [cp.Variable((X, K), nonneg=True) for _ in range(G)]
    utility = cp.hstack([cp.sum(cp.multiply(q[g], value[g])) / X for g in range(G)])
    kl = sum(w[g] / X * cp.sum(cp.rel_entr(q[g], mu[g])) for g in range(G))
    divergence = 0
    for x in range(X):
        p = [np.eye(Y)[answers[g, x]].T @ q[g][x] for g in range(G)]
        divergence += penalty(p, w) / X
    objective = welfare(utility, w) - penalty_weight * divergence - KL_WEIGHT * kl
    program = cp.Problem(cp.Maximize(objective), [cp.sum(v, axis=1) == 1 for v in q])
    program.solve(solver=cp.CLARABEL)
    return program.value, np.stack([v.value for v in q])


CASES = [
    (name, penalty, weight, seed)
    for seed, (name, penalty, weight) in enumerate(
        itertools.product(WELFARES, PENALTIES, (0.0, 0.3, 1.0, 4.0))
    )
    if seed % 2 == 0 or weight == 4.0
]


@pytest.mark.parametrize(("name", "penalty", "penalty_weight", "seed"), CASES)
def test_solutions_equal_those_of_an_interior_point_method(name, penalty, penalty_weight, seed):
    value, mu, answers, weights = instance(seed)
    ours, theirs = zip(WELFARES[name], PENALTIES[penalty], strict=True)
    best, policy = by_interior_point(value, mu, answers, weights, *theirs, penalty_weight)
    solution = solve_central(
        torch.from_numpy(value),
        torch.from_numpy(mu),
        torch.from_numpy(answers),
        torch.ones(X, dtype=torch.bool),
        welfare=ours[0],
        penalty=ours[1],
        penalty_weight=penalty_weight,
        kl_weight=KL_WEIGHT,
        weights_G=torch.from_numpy(weights),
        tol=1e-7,
    )
    assert solution.objective == pytest.approx(best, abs=1e-5)
    assert best <= solution.objective + solution.gap + 1e-6
    assert np.abs(solution.policy_GXK.numpy() - policy).max() < 2e-3
