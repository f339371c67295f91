"""Stage 5b, re-coordination: the centre solves again around what the agents answer by now.

Round r begins after r * clone.coordinate_every updates. Agents say how likely each candidate of
their training rows is under their adapter; the central problem is solved with that as the prox
centre, q_r = argmax f(q) - beta sum_g w_g E_x KL(q || c_r), f = W - lambda D: a proximal point step
(Rockafellar 1976) from where the adapters stand. From the second round on the log itself is no
longer the anchor, only the floor of the prox centre is.

Shapes: G groups, X questions, K candidates (padded), B rows of a batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

from trialign_ray.algorithms.algorithm import Algorithm, AlgorithmInput, Targets
from trialign_ray.candidates import JointQuestion
from trialign_ray.central.problem import checked_problem
from trialign_ray.checkpoint import file_sha256
from trialign_ray.critic import CandidateTensors
from trialign_ray.errors import DataError
from trialign_ray.ops.inconsistency import penalty_by_name

SOLUTION = "solution.json"
"""Written last: a round that has it is finished."""
CENTRE_FLOOR = 0.01
"""Share of the log's mu in every prox centre. Candidates that were left out of the rows, which no
agent reports, keep their place by it; more than 4.6 nats of reward per KL price bring them back."""


@dataclass(frozen=True)
class PolicyReport:
    """What a group answers: probabilities of the candidates of every row, in the order of the file
    of rows that has this sha256. Floats and an id; no weight travels."""

    rows_sha256: str
    policy: tuple[tuple[float, ...], ...]


def round_folder(targets: Path, round_: int) -> Path:
    """Where rows and solution of a round lie; those of round 0 in the folder of targets itself."""
    return targets if round_ == 0 else targets / f"round-{round_}"


def reported_policy(
    questions: Sequence[JointQuestion],
    groups: Sequence[str],
    reference_GXK: Tensor,
    folder: Path,
    reports: Mapping[str, PolicyReport],
) -> Tensor:
    """What the agents answer, float64, shape (G, X, K): 0 for a candidate that a row leaves out,
    the log's mu on a question of which a group has no row.

    Args: folder: where the rows lie that the reports are about.
    Raises: DataError if a report is about other rows.
    """
    policy_GXK = reference_GXK.double().clone()
    number = {question.id: x for x, question in enumerate(questions)}
    for g, group in enumerate(groups):
        for row, p_K in zip(*_reported_rows(folder, group, reports[group]), strict=True):
            x = number[row["question_id"]]
            place = {c.text: k for k, c in enumerate(questions[x].views[group].candidates)}
            policy_GXK[g, x] = 0.0
            for text, p in zip(row["candidate_text"], p_K, strict=True):
                policy_GXK[g, x, place[text]] = p
    return policy_GXK


def _reported_rows(
    folder: Path, group: str, report: PolicyReport
) -> tuple[list[dict[str, Any]], Sequence[Sequence[float]]]:
    path = folder / f"{group}.parquet"
    found = file_sha256(path)
    if found != report.rows_sha256:
        raise DataError(
            f"group {group} reports on rows with sha256 {report.rows_sha256[:12]}, but {path} has "
            f"{found[:12]}; one of them belongs to another run, train again in a new --run-dir"
        )
    return pq.read_table(path, columns=["question_id", "candidate_text"]).to_pylist(), report.policy


def prox_centre(policy_GXK: Tensor, reference_GXK: Tensor) -> Tensor:
    """c = (1 - e) p + e mu, e = `CENTRE_FLOOR`: positive wherever mu is."""
    return (1 - CENTRE_FLOOR) * policy_GXK + CENTRE_FLOOR * reference_GXK.double()


def solve_around(algorithm: Algorithm, problem: AlgorithmInput, policy_GXK: Tensor) -> Targets:
    """The algorithm's targets with the agents' policy as prox centre in place of mu.

    Candidates rank by log(q / mu) as ever: the losses that read the rank are relative to pi_ref,
    which stays.
    """
    tensors = problem.tensors
    centre_GXK = prox_centre(policy_GXK, tensors.reference_GXK)
    around = replace(problem, tensors=replace(tensors, reference_GXK=centre_GXK))
    targets = algorithm.solve(around)
    supported = tensors.mask_GXK
    moved_GXK = torch.where(supported, centre_GXK / tensors.reference_GXK.double(), 1.0).log()
    return replace(targets, value_GXK=targets.value_GXK + moved_GXK)


def round_report(
    problem: AlgorithmInput, policy_GXK: Tensor, targets_GXK: Tensor
) -> dict[str, float]:
    """How inconsistent the agents' answers are, in the penalty's units, and how far from the new
    targets: total variation, mean over groups and questions, in [0, 1].

    Both among the candidates that the agents report: what they say beside those of their rows does
    not show here, only in evaluation.
    """
    tensors = problem.tensors
    present_GX = tensors.mask_GXK.any(-1)
    distance_GX = 0.5 * (policy_GXK - targets_GXK).abs().sum(-1)
    return {
        "agents_inconsistency": _inconsistency(problem, tensors, policy_GXK),
        "distance_to_targets": float(distance_GX[present_GX].mean()),
    }


def _inconsistency(problem: AlgorithmInput, tensors: CandidateTensors, policy: Tensor) -> float:
    central = checked_problem(
        torch.zeros_like(policy),
        policy,
        tensors.answer_GXK,
        tensors.is_truth_X,
        tensors.mask_GXK,
        problem.weights_G,
        None,
    )
    penalty = penalty_by_name(problem.config.penalty)
    return float(central.inconsistency(central.reference_GXK, penalty)[0])
