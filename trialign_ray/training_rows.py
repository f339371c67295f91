"""Stage 4b, training rows: what the centre hands to the agents, one Parquet row per question.

Shapes: G groups, X questions, K candidates (padded).
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from trialign_ray.algorithms.algorithm import Algorithm, Targets
from trialign_ray.candidates import JointQuestion
from trialign_ray.critic import PSEUDO_COUNT
from trialign_ray.errors import DataError
from trialign_ray.extraction import DEFAULT_EXTRACTION, PAIRWISE, pair_mask
from trialign_ray.fitted_critic import FittedCritic
from trialign_ray.targets import CentralSolution
from trialign_ray.truth_heads import ReferenceScore

SHARED_ROWS = "shared/rows.parquet"
"""Where the rows of an adapter lie that several groups share; no group's name has a slash."""
READ_COLUMNS = (
    *("group", "prompt_text", "candidate_text", "target", "reference_logprob"),
    *("prior", "value", "margin"),
)
"""What an agent needs of a row; the others are for the reader of the file."""
GROUP_WEIGHTS = b"trialign.group_weights"
"""Key of a file's metadata: fixed weights of the groups in the loss, as JSON."""


def write_targets(
    critic: FittedCritic,
    algorithm: Algorithm,
    targets: Targets,
    folder: Path,
    common: bool = False,
) -> None:
    """Writes `<group>.parquet` for every group, or `SHARED_ROWS` for an adapter that they share.

    Args: common: both, since a common adapter is trained before the groups' own.
    Raises: DataError if a trainee has nothing to learn.
    """
    questions = critic.candidates_for(algorithm)
    extraction = algorithm.extraction or critic.config.clone.extraction or DEFAULT_EXTRACTION
    by_group = {
        group: rows_of_group(
            questions,
            group,
            g,
            targets,
            critic.reference,
            critic.config.clone.min_target,
            extraction,
        )
        for g, group in enumerate(critic.groups)
    }
    if algorithm.sharing == "own":
        for group, rows in by_group.items():
            write_rows(rows, folder / f"{group}.parquet", f"group {group!r}")
        if not common:
            return
    weights = None
    if algorithm.sharing == "own":
        weights = shared_weights(critic.groups, critic.weights_G, targets.solution)
    together = [row for rows in by_group.values() for row in rows]
    write_rows(together, folder / SHARED_ROWS, "the shared adapter", weights)


def shared_weights(
    groups: Sequence[str], weights_G: Tensor, solution: CentralSolution | None
) -> dict[str, float]:
    """Weights, of sum 1, of the groups' gradients in a common adapter's: dW/dU_g at the solution,
    summed over objectives; the groups' own weights where no central problem was solved.

    The chain rule, grad W = sum_g dW/dU_g grad U_g; the credit has w_g in it.
    """
    credit_G = weights_G.double()
    if solution is not None:
        credit_G = solution.credit_G.reshape(-1, len(groups)).sum(0)
    total = float(credit_G.sum())
    if not 0 < total < math.inf:
        raise DataError(
            f"the groups' welfare credits sum to {total}, expected a positive number: nothing "
            "weights the common adapter's losses; use another targets.welfare, or set "
            "clone.shared_rank to 0"
        )
    return dict(zip(groups, (credit_G / total).tolist(), strict=True))


def rows_of_group(
    questions: Sequence[JointQuestion],
    group: str,
    g: int,
    targets: Targets,
    reference: ReferenceScore,
    min_target: float,
    extraction: str,
) -> list[dict[str, Any]]:
    """The rows of group number `g`, in the order of `questions`.

    Cloning leaves out candidates with less target than `min_target`; other extractions need the
    losers too. A question that teaches nothing (no target mass, no pair to prefer, no known return
    where the extraction learns from returns) has no row.
    """
    rows = []
    for x, question in enumerate(questions):
        view = question.views.get(group)
        if view is None or not view.candidates:
            continue
        num_candidates = len(view.candidates)
        policy_K = targets.policy_GXK[g, x, :num_candidates]
        value_K = targets.value_GXK[g, x, :num_candidates]
        kept = _kept(policy_K, value_K, min_target, extraction)
        if not kept:
            continue
        total = float(policy_K[kept].sum())
        chosen = [view.candidates[k] for k in kept]
        rows.append(
            {
                "group": group,
                "question_id": question.id,
                "prompt_text": view.prompt,
                "candidate_text": [c.text for c in chosen],
                "answer": [c.answer for c in chosen],
                "target": [q / total for q in policy_K[kept].tolist()],
                "reference_logprob": [reference(question.id, group, c.text) for c in chosen],
                "prior": [c.count + PSEUDO_COUNT for c in chosen],
                "value": _nullable(value_K[kept]),
                "margin": targets.margin_GXK[g, x, kept].tolist(),
            }
        )
    return rows


def _kept(policy_K: Tensor, value_K: Tensor, min_target: float, extraction: str) -> list[int]:
    if float(policy_K.sum()) <= 0:
        return []
    everyone, known_K = list(range(len(policy_K))), ~value_K.isnan()
    if extraction == "clone":
        kept = [k for k in everyone if float(policy_K[k]) >= min_target]
        return kept or [int(policy_K.argmax())]
    if extraction == "listwise":
        return everyone
    if extraction in PAIRWISE:
        return everyone if bool(pair_mask(value_K, known_K).any()) else []
    return everyone if bool(known_K.any()) else []


def _nullable(values: Tensor) -> list[float | None]:
    return [None if math.isnan(v) else v for v in values.tolist()]


def write_rows(
    rows: Iterable[dict[str, Any]],
    path: Path,
    what: str,
    group_weights: dict[str, float] | None = None,
) -> None:
    """Writes training rows, and the fixed weights of groups with them if there are any.

    Raises: DataError if there are no rows: nothing would be trained.
    """
    table = list(rows)
    if not table:
        raise DataError(
            f"{what} has no training rows: the log and the algorithm leave it nothing to learn "
            "from; verify more questions (collect.label_fraction), collect again, or use another "
            "algorithm"
        )
    content = pa.Table.from_pylist(table)
    if group_weights is not None:
        weights = json.dumps(group_weights, sort_keys=True).encode()
        content = content.replace_schema_metadata({GROUP_WEIGHTS: weights})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(content, temporary, compression="zstd")
    temporary.replace(path)


def read_group_weights(path: Path) -> dict[str, float] | None:
    """The fixed weights of groups that a file of rows carries; None if it carries none."""
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata[GROUP_WEIGHTS]) if GROUP_WEIGHTS in metadata else None


def read_rows(path: Path, encode: Callable[[str], list[int]], eos_id: int) -> list[Any]:
    """The rows of a file as `clone.CloneRow`s. Raises: DataError if the file is damaged.

    Args: encode: text to token ids. eos_id: ends every candidate.
    """
    from trialign_ray.clone import CloneRow
    from trialign_ray.tree_batch import Tree

    try:
        records = pq.read_table(path, columns=list(READ_COLUMNS)).to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"training rows {path} cannot be read: {error}") from error
    return [
        CloneRow(
            group=r["group"],
            tree=Tree(
                encode(r["prompt_text"]), [[*encode(text), eos_id] for text in r["candidate_text"]]
            ),
            target_K=tuple(r["target"]),
            reference_logprob_K=tuple(r["reference_logprob"]),
            prior_K=tuple(r["prior"]),
            value_K=tuple(math.nan if v is None else v for v in r["value"]),
            margin_K=tuple(r["margin"]),
        )
        for r in records
    ]
