"""The central critic-learner: sees all groups' answers, solves the central problem, and hands every
group its targets. A plain class, as `group_agent.GroupAgent`; what it needs lies on disk, so that a
restarted one does the same again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trialign_ray.checkpoint import write_json
from trialign_ray.coordination import (
    SOLUTION,
    PolicyReport,
    reported_policy,
    round_folder,
    round_report,
    solve_around,
)
from trialign_ray.fitted_critic import CriticSpec, FittedCritic, fit_critic


class CriticLearner:
    """Verbs: fit, solve, coordinate, state."""

    def __init__(self, spec: CriticSpec):
        torch.set_num_threads(1)
        self._spec = spec
        self._critic: FittedCritic | None = None

    def __repr__(self) -> str:
        return "CriticLearner()"

    def fit(self) -> dict[str, float]:
        """Fits the truth head on the log; writes what every head believes about every question."""
        critic = self._fitted()
        beliefs = critic.beliefs()
        folder = Path(self._spec.critic_dir)
        if critic.saved is not None:
            critic.saved.write(critic.estimate)
        write_json(folder / "truth_head.json", beliefs[critic.config.critic.truth_head])
        write_json(folder / "truth_heads.json", beliefs)
        return {
            "critic/num_labels": float(critic.estimate.num_labels),
            "critic/temperature": critic.estimate.temperature,
        }

    def solve(self) -> dict[str, Any]:
        """Runs the algorithm; writes every group's training rows and the solution's summary."""
        from trialign_ray.algorithms import algorithm_by_name
        from trialign_ray.training_rows import write_targets

        critic = self._fitted()
        algorithm = algorithm_by_name(critic.config.algorithm)
        targets = algorithm.solve(critic.problem_for(algorithm))
        folder = Path(self._spec.targets_dir)
        common = critic.config.clone.shared_rank > 0
        write_targets(critic, algorithm, targets, folder, common)
        summary = solution_summary(critic.groups, targets.solution)
        summary["penalty_weight"] = targets.penalty_weight
        write_json(folder / SOLUTION, summary)
        return summary

    def coordinate(self, round_: int, reports: Mapping[str, PolicyReport]) -> dict[str, Any]:
        """Solves again around what the groups answer; writes the rows of that round, and last its
        summary, by which it is known to be finished. A finished round is not solved again."""
        from trialign_ray.algorithms import algorithm_by_name
        from trialign_ray.training_rows import write_targets

        targets_dir = Path(self._spec.targets_dir)
        folder = round_folder(targets_dir, round_)
        if (folder / SOLUTION).is_file():
            return json.loads((folder / SOLUTION).read_text(encoding="utf-8"))
        critic = self._fitted()
        algorithm = algorithm_by_name(critic.config.algorithm)
        problem = critic.problem_for(algorithm)
        policy_GXK = reported_policy(
            critic.candidates_for(algorithm),
            critic.groups,
            problem.tensors.reference_GXK,
            round_folder(targets_dir, round_ - 1),
            reports,
        )
        targets = solve_around(algorithm, problem, policy_GXK)
        write_targets(critic, algorithm, targets, folder)
        report = round_report(problem, policy_GXK, targets.policy_GXK)
        summary = solution_summary(critic.groups, targets.solution) | report
        write_json(folder / SOLUTION, summary)
        return summary

    def state(self) -> dict[str, Any]:
        """Whether the truth head is fitted."""
        return {"fitted": self._critic is not None}

    def _fitted(self) -> FittedCritic:
        if self._critic is None:
            self._critic = fit_critic(self._spec)
        return self._critic


def solution_summary(groups: tuple[str, ...], solution: Any) -> dict[str, Any]:
    """Utilities and credits by objective and group, and the certificate; empty utilities where the
    algorithm solves no central problem."""
    if solution is None:
        return {"utility": {}, "credit": {}, "inconsistency": None, "gap": None}
    utility = solution.utility_G.reshape(-1, len(groups))
    credit = solution.credit_G.reshape(-1, len(groups))
    names = ("truth", "personalization") if len(utility) == 2 else ("return",)

    def by_objective(values: torch.Tensor) -> dict[str, dict[str, float]]:
        rows = zip(names, values.tolist(), strict=True)
        return {name: dict(zip(groups, row, strict=True)) for name, row in rows}

    return {
        "utility": by_objective(utility),
        "credit": by_objective(credit),
        "inconsistency": solution.inconsistency,
        "objective": solution.objective,
        "gap": solution.gap,
        "num_iterations": solution.num_iterations,
    }
