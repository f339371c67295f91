"""What a policy over a log's candidates promises: truth, personalization, inconsistency, KL.

Shapes: G groups, X questions, K candidates (padded).
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from trialign_ray.algorithms import algorithm_by_name
from trialign_ray.algorithms.algorithm import AlgorithmInput
from trialign_ray.assembly import Assembly
from trialign_ray.central.problem import Problem, checked_problem
from trialign_ray.config import Config
from trialign_ray.critic import candidate_tensors
from trialign_ray.errors import ConfigError, ConvergenceError, DataError
from trialign_ray.fitted_critic import FittedCritic, fit_critic
from trialign_ray.ops.inconsistency import penalty_by_name
from trialign_ray.run_directory import RunDirectory, existing_run
from trialign_ray.setting import build_setting

logger = logging.getLogger(__name__)
METHOD = "trialign"
"""The algorithm whose central problem is swept."""


@dataclass(frozen=True)
class Prediction:
    """What a policy promises on the log's questions.

    truth, personalization: by group, in [0, 1]; a group of which nobody knows it is missing.
    inconsistency: in units of the run's penalty. kl: sum_g w_g E_x KL(q || mu), nats.
    """

    truth: dict[str, float]
    personalization: dict[str, float]
    inconsistency: float
    kl: float

    @property
    def worst_truth(self) -> float:
        return min(self.truth.values())

    @property
    def worst_personalization(self) -> float:
        return min(self.personalization.values())


@dataclass(frozen=True)
class SweptLog:
    """A log as the central problem sees it, and as predictions do.

    problem: with the run's settings. truth_GXK, personalization_GXK: gold where it is visible, the
    truth head's mean (not its pessimistic estimate) elsewhere; NaN where not known.
    """

    groups: tuple[str, ...]
    config: Config
    problem: AlgorithmInput
    truth_GXK: Tensor
    personalization_GXK: Tensor

    @cached_property
    def _linear(self) -> Problem:
        tensors = self.problem.tensors
        return checked_problem(
            torch.zeros_like(tensors.reference_GXK),
            tensors.reference_GXK,
            tensors.answer_GXK,
            tensors.is_truth_X,
            tensors.mask_GXK,
            self.problem.weights_G,
            None,
        )

    @property
    def reference_GXK(self) -> Tensor:
        """mu, normalised over the candidates, 0 for padding."""
        return self._linear.reference_GXK

    def predict(self, q_GXK: Tensor) -> Prediction:
        """What q promises; see `known_means` for truth and personalization."""
        penalty = penalty_by_name(self.problem.config.penalty)
        kl_GXK = torch.xlogy(q_GXK, q_GXK) - torch.xlogy(q_GXK, self.reference_GXK)
        kl = (self._linear.kl_scale_GX * kl_GXK.sum(-1)).sum()
        return Prediction(
            truth=known_means(q_GXK, self.truth_GXK, self.groups),
            personalization=known_means(q_GXK, self.personalization_GXK, self.groups),
            inconsistency=float(self._linear.inconsistency(q_GXK, penalty)[0]),
            kl=max(float(kl), 0.0),  # rounding
        )

    def of_the_run(self) -> Prediction | None:
        """What the run's own setting promises; None if its algorithm is another, or the setting
        has no certified solution."""
        if self.config.algorithm != METHOD:
            return None
        try:
            targets = algorithm_by_name(METHOD).solve(self.problem)
        except ConvergenceError as error:
            logger.warning("the run's own setting is not shown: %s", error)
            return None
        return self.predict(targets.policy_GXK.double())


def known_means(q_GXK: Tensor, value_GXK: Tensor, groups: tuple[str, ...]) -> dict[str, float]:
    """E_x [sum_k q v / sum_k q] by group, sums over candidates of known v, mean over questions
    where there is one that q may choose; a group without any is left out."""
    known_GXK = ~value_GXK.isnan()
    mass_GX = (q_GXK * known_GXK).sum(-1)
    total_GX = (q_GXK * value_GXK.nan_to_num()).sum(-1)
    means = {}
    for group, mass_X, total_X in zip(groups, mass_GX, total_GX, strict=True):
        asked = mass_X > 0
        if bool(asked.any()):
            means[group] = float((total_X[asked] / mass_X[asked]).mean())
    return means


def read_swept_log(root: Path) -> SweptLog:
    """The log of a scored run, with its truth head fitted. Raises: ConfigError, DataError."""
    return swept_log(read_critic(root), root)


def read_critic(root: Path, config: Config | None = None) -> FittedCritic:
    """The critic of a scored run; its truth head is fitted when it is first asked.

    Args: config: in place of the run's own, with the same log. Raises: ConfigError, DataError.
    """
    run, own = existing_run(root)
    _require_scores(run)
    config = config or own
    setting = build_setting(config.judged_by_rules, run.root)  # its answers are scored already
    return fit_critic(Assembly(config, setting, run, local=True).critic_spec())


def swept_log(critic: FittedCritic, root: Path) -> SweptLog:
    """What a critic makes of the log in `root`. Raises: DataError if nothing is known of it."""
    method = algorithm_by_name(METHOD)
    known = candidate_tensors(critic.candidates_for(method), critic.groups, critic.estimate, 0.0)
    found = (("truth", known.truth_GXK), ("personalization", known.personalization_GXK))
    for what, value_GXK in found:
        if bool(value_GXK.isnan().all()):
            raise DataError(
                f"{root}: nobody knows the {what} of any answer in the log, so there is no "
                "trade-off to show; verify some answers (collect.label_fraction), choose another "
                "critic.truth_head, or collect with a preference scorer"
            )
    return SweptLog(
        groups=critic.groups,
        config=critic.config,
        problem=critic.problem_for(method),
        truth_GXK=known.truth_GXK.double(),
        personalization_GXK=known.personalization_GXK.double(),
    )


def _require_scores(run: RunDirectory) -> None:
    for path, what in ((run.log_file, "log"), (run.scores_file, "reference scores")):
        if not path.is_file():
            raise ConfigError(
                f"{run.root} has no {what} ({path.relative_to(run.root)}), on which the trade-off "
                f"is found; `trialign train {run.config_file} --resume --run-dir {run.root}` makes "
                "log and scores"
            )
