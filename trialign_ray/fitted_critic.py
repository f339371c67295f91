"""Stage 3, the critic as a whole: the log with reference scores and truth estimates, from which any
algorithm's problem can be made. A plain function of files, so that a restarted critic-learner, a
frontier sweep and a test all do the same.

Shapes: G groups, X questions, K candidates (padded).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from trialign_ray.algorithms.algorithm import Algorithm, AlgorithmInput
from trialign_ray.candidates import JointQuestion, borrow_peers, join_questions
from trialign_ray.config import Config
from trialign_ray.critic import CandidateTensors, candidate_tensors
from trialign_ray.dataset import read_dataset
from trialign_ray.dialogue_values import multi_turn_tensors
from trialign_ray.reference_scores import read_scores
from trialign_ray.seeds import derive_seed
from trialign_ray.truth_heads import (
    Beliefs,
    ReferenceScore,
    TruthEstimate,
    TruthEvidence,
    beliefs_by_head,
    gather_evidence,
    truth_head_by_name,
)
from trialign_ray.truth_heads.saved import SavedEstimate
from trialign_ray.values import ValueConfig


@dataclass(frozen=True)
class CriticSpec:
    """Where the log and the reference scores lie, where targets go, and whose weight is what.

    gold: hidden gold by question id, for the oracle head alone; None otherwise.
    """

    config: Config
    group_weights: dict[str, float]
    dataset_file: str
    scores_file: str
    critic_dir: str
    targets_dir: str
    gold: dict[str, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class FittedCritic:
    """Questions as logged, the same with borrowed candidates, and who believes what.

    saved: where the estimate of the configured truth head lies, if it was fitted before.
    """

    config: Config
    groups: tuple[str, ...]
    weights_G: torch.Tensor
    questions: list[JointQuestion]
    borrowed: list[JointQuestion]
    reference: ReferenceScore
    evidence: TruthEvidence
    rows: list[dict[str, Any]]
    seed: int
    saved: SavedEstimate | None = None

    @cached_property
    def estimate(self) -> TruthEstimate:
        """What the configured truth head says; read, or fitted when it is first asked for."""
        critic, found = self.config.critic, self.saved and self.saved.read()
        if found is not None:
            return found
        return truth_head_by_name(critic.truth_head)(self.evidence, critic, self.seed)

    def under(self, config: Config) -> "FittedCritic":
        """The same critic under other targets or another pessimism: the truth head is not fitted
        again. What else decides the fit must be the same in both configurations."""
        other = replace(self, config=config)
        other.__dict__["estimate"] = self.estimate
        return other

    def candidates_for(self, algorithm: Algorithm) -> list[JointQuestion]:
        """The questions as the algorithm may see them."""
        borrows = algorithm.central and self.config.targets.borrow_peers
        return self.borrowed if borrows else self.questions

    def problem_for(self, algorithm: Algorithm) -> AlgorithmInput:
        """The log as tensors: with the truth head's estimates if the algorithm is central, else
        with verified truth alone."""
        config = self.config
        if algorithm.central:
            estimate = self.estimate
        else:
            estimate = truth_head_by_name("labels")(self.evidence, config.critic, self.seed)
        tensors = candidate_tensors(
            self.candidates_for(algorithm), self.groups, estimate, config.critic.pessimism
        )
        if algorithm.central and config.critic.discount > 0:
            tensors = self._with_later_turns(tensors, algorithm)
        return AlgorithmInput(tensors, config.targets, self.weights_G, self.seed)

    def _with_later_turns(
        self, tensors: CandidateTensors, algorithm: Algorithm
    ) -> CandidateTensors:
        """Values of the whole dialogue in place of this turn's rewards (ALGORITHM, section 2)."""
        critic = self.config.critic
        head = self.estimate.pessimistic(critic.pessimism)
        beliefs = {
            q.id: dict(zip(q.answers, head[x].tolist(), strict=False))
            for x, q in enumerate(self.questions)
        }
        settings = ValueConfig(
            discount=critic.discount,
            expectile=critic.expectile,
            steps=critic.value_steps,
            credit="team" if critic.team_reward else "own",
        )
        return multi_turn_tensors(
            tensors,
            self.rows,
            self.candidates_for(algorithm),
            self.groups,
            beliefs,
            settings,
            derive_seed(self.config.seed, "values"),
        )

    def beliefs(self) -> dict[str, Beliefs]:
        """What every truth head believes about every question; the configured one is not fitted
        again."""
        known = {self.config.critic.truth_head: self.estimate}
        return beliefs_by_head(self.evidence, self.config.critic, self.seed, known)


def fit_critic(spec: CriticSpec) -> FittedCritic:
    """Reads log and scores; truth heads are fitted when they are asked for. Raises: DataError."""
    config = spec.config
    rows: list[dict[str, Any]] = read_dataset(Path(spec.dataset_file))
    if not config.critic.later_turns:
        rows = [r for r in rows if r["turn"] == 0]
    groups = tuple(rows[0]["group_ids"])
    scores = read_scores(Path(spec.scores_file), Path(spec.dataset_file))
    questions = join_questions(rows)
    seed = derive_seed(config.seed, "critic")

    def reference(question: str, group: str, text: str) -> float:
        return scores[question, group, text].logprob

    evidence = gather_evidence(questions, groups, reference, spec.gold)
    return FittedCritic(
        config=config,
        groups=groups,
        weights_G=torch.tensor([spec.group_weights[g] for g in groups]),
        questions=questions,
        borrowed=[
            borrow_peers(q, lambda g, text, q=q: scores[q.id, g, text].personalization)
            for q in questions
        ],
        reference=reference,
        evidence=evidence,
        rows=rows,
        seed=seed,
        saved=SavedEstimate.of(
            Path(spec.critic_dir), Path(spec.dataset_file), config.critic, config.seed
        ),
    )
