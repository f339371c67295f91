"""The central critic-learner: sees all groups' answers, solves the central problem, and hands every
group its targets. A plain class, as `group_agent.GroupAgent`; what it needs lies on disk, so that a
restarted one does the same again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from trialign_ray.candidates import JointQuestion, borrow_peers, join_questions
from trialign_ray.checkpoint import write_json
from trialign_ray.config import Config
from trialign_ray.dataset import read_dataset
from trialign_ray.errors import DataError
from trialign_ray.reference_scores import read_scores
from trialign_ray.seeds import derive_seed


@dataclass(frozen=True)
class CriticSpec:
    """Where the log and the reference scores lie, and where targets go."""

    config: Config
    group_weights: dict[str, float]
    dataset_file: str
    scores_file: str
    critic_dir: str
    targets_dir: str


class CriticLearner:
    """Verbs: fit, solve, state."""

    def __init__(self, spec: CriticSpec):
        torch.set_num_threads(1)
        self._spec = spec
        self._fitted = False

    def __repr__(self) -> str:
        return "CriticLearner()"

    def fit(self) -> dict[str, float]:
        """Fits the truth head on the log; writes what it believes about every question."""
        from trialign_ray.critic import estimate_truth

        spec = self._spec
        rows = read_dataset(Path(spec.dataset_file))
        self._groups = list(rows[0]["group_ids"])
        scores = read_scores(Path(spec.scores_file), Path(spec.dataset_file))
        self._reference = lambda question, group, text: scores[question, group, text].logprob
        self._questions = join_questions(rows)
        seed = derive_seed(spec.config.seed, "critic")
        self._estimate = estimate_truth(
            self._questions, self._groups, self._reference, spec.config, seed
        )
        beliefs = {
            q.id: dict(zip(q.answers, self._estimate.mean_XZ[x].tolist(), strict=False))
            for x, q in enumerate(self._questions)
            if q.has_truth
        }
        path = Path(spec.critic_dir) / "truth_head.json"
        write_json(path, beliefs)
        if spec.config.targets.borrow_peers:
            self._questions = [
                borrow_peers(q, lambda g, text, q=q: scores[q.id, g, text].personalization)
                for q in self._questions
            ]
        self._fitted = True
        return {
            "critic/num_labels": float(self._estimate.num_labels),
            "critic/temperature": self._estimate.temperature,
        }

    def solve(self) -> dict[str, Any]:
        """Solves the central problem; writes every group's rows and the solution's summary."""
        from trialign_ray.algorithms import algorithm_by_name
        from trialign_ray.critic import candidate_tensors

        if not self._fitted:
            self.fit()
        spec, config = self._spec, self._spec.config
        tensors = candidate_tensors(
            self._questions, self._groups, self._estimate, config.critic.pessimism
        )
        weights = torch.tensor([spec.group_weights[g] for g in self._groups])
        solution = algorithm_by_name(config.algorithm)(tensors, config.targets, weights)
        for g, group in enumerate(self._groups):
            self._write_rows(group, solution.policy_GXK[g])
        utility = solution.utility_G.reshape(-1, len(self._groups))
        credit = solution.credit_G.reshape(-1, len(self._groups))
        names = ("truth", "personalization") if len(utility) == 2 else ("return",)
        summary = {
            "utility": _by_objective(names, self._groups, utility),
            "credit": _by_objective(names, self._groups, credit),
            "inconsistency": solution.inconsistency,
            "objective": solution.objective,
            "gap": solution.gap,
            "num_iterations": solution.num_iterations,
        }
        path = Path(spec.targets_dir) / "solution.json"
        write_json(path, summary)
        return summary

    def state(self) -> dict[str, Any]:
        """Whether the truth head is fitted."""
        return {"fitted": self._fitted}

    def _write_rows(self, group: str, policy_XK: torch.Tensor) -> None:
        minimum = self._spec.config.clone.min_target
        rows = []
        for x, question in enumerate(self._questions):
            row = self._row(question, group, policy_XK[x].tolist(), minimum)
            if row is not None:
                rows.append(row)
        if not rows:
            raise DataError(f"group {group!r} has no candidates in the log; collect again")
        path = Path(self._spec.targets_dir) / f"{group}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        pq.write_table(pa.Table.from_pylist(rows), temporary, compression="zstd")
        temporary.replace(path)

    def _row(
        self, question: JointQuestion, group: str, policy_K: list[float], minimum: float
    ) -> dict[str, Any] | None:
        view = question.views.get(group)
        if view is None or not view.candidates:
            return None
        pairs = list(zip(view.candidates, policy_K, strict=False))
        kept = [(c, q) for c, q in pairs if q >= minimum] or [max(pairs, key=lambda pair: pair[1])]
        total = sum(q for _, q in kept)
        return {
            "question_id": question.id,
            "prompt_text": view.prompt,
            "candidate_text": [c.text for c, _ in kept],
            "answer": [c.answer for c, _ in kept],
            "target": [q / total for _, q in kept],
            "reference_logprob": [self._reference(question.id, group, c.text) for c, _ in kept],
        }


def _by_objective(
    names: tuple[str, ...], groups: list[str], values: torch.Tensor
) -> dict[str, dict[str, float]]:
    return {
        name: dict(zip(groups, values[j].tolist(), strict=True)) for j, name in enumerate(names)
    }
