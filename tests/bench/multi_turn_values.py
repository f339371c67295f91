"""Does a critic of the whole dialogue rank candidates better than one of a single turn?

    python -m tests.bench.multi_turn_values --run runs/quickstart [--value-seeds 3]

On a finished run: candidates of every group on questions whose gold was hidden from the method are
ranked by the reward of one turn and by Q of two, and judged by the gold. `both` is r = (T + P) / 2,
`truth` is T alone. AUC: mean over (group, question) with true and false candidates of the
probability that a true one stands above a false one. Top-1: the first candidate is true. Then the
externality: what a first answer does to what peers say next.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from envs.types import Question
from envs.verifiers import truth_of
from trialign_ray.candidates import JointQuestion, borrow_peers, join_questions
from trialign_ray.config import load_config
from trialign_ray.critic import CandidateTensors, candidate_tensors
from trialign_ray.dataset import read_dataset
from trialign_ray.dialogue_features import (
    Beliefs,
    DialogueEncoder,
    RewardWeights,
    dialogue_transitions,
)
from trialign_ray.dialogue_values import (
    candidate_rewards,
    count_turns,
    externality,
    turn_zero_values,
)
from trialign_ray.reference_scores import read_scores
from trialign_ray.setting import build_setting
from trialign_ray.truth_heads import TruthEstimate
from trialign_ray.values import ValueConfig, fit_values

EVENTS = ("auc", "top-1")
OBJECTIVES = {"both": RewardWeights(1.0, 1.0), "truth": RewardWeights(1.0, 0.0)}
CRITICS = {
    "one turn": ValueConfig(discount=0.0, steps=1),
    "two turns, own future": ValueConfig(discount=0.9),
    "two turns, team's future": ValueConfig(discount=0.9, credit="team"),
}
"""The first is the bar."""
CONTROL = RewardWeights(2.0, 1.0)
"""One turn with twice the weight on truth: what follows depends on truth more than on style, so a
critic of two turns may win by its weights alone."""


@dataclass(frozen=True)
class Log:
    """A run's log with candidates, beliefs and the gold of its hidden questions."""

    rows: list[dict]
    groups: tuple[str, ...]
    questions: list[JointQuestion]
    borrowed: list[JointQuestion]
    beliefs: Beliefs
    tensors: CandidateTensors
    hidden: dict[str, Question]


def read_log(run: Path) -> Log:
    """Everything that the critic had, as the run stored it."""
    config = load_config(run / "config.yaml")
    log_file = run / "dataset" / "log.parquet"
    rows = read_dataset(log_file)
    scores = read_scores(run / "critic" / "reference_scores.parquet", log_file)
    beliefs = json.loads((run / "critic" / "truth_head.json").read_text())
    questions = join_questions(rows)
    borrowed = [
        borrow_peers(q, lambda g, text, q=q: scores[q.id, g, text].personalization)
        for q in questions
    ]
    width = max(len(q.answers) for q in questions)
    mean = torch.zeros(len(questions), width)
    for x, q in enumerate(questions):
        for z, answer in enumerate(q.answers):
            mean[x, z] = beliefs.get(q.id, {}).get(answer, 0.0)
    groups = tuple(rows[0]["group_ids"])
    estimate = TruthEstimate(mean, torch.zeros_like(mean), 1.0, 0)
    asked = build_setting(config).log_questions(config.collect.label_fraction, config.seed)
    return Log(
        rows,
        groups,
        questions,
        borrowed,
        beliefs,
        candidate_tensors(borrowed, groups, estimate, 0.0),
        {q.id: q for q in asked if q.has_truth and not q.gold_visible},
    )


def true_candidates(log: Log) -> Tensor:
    """1 where a hidden question's candidate is true, 0 where false, NaN elsewhere, (G, X, K)."""
    label = torch.full(log.tensors.mask_GXK.shape, torch.nan)
    for x, question in enumerate(log.borrowed):
        asked = log.hidden.get(question.id)
        for g, group in enumerate(log.groups if asked else ()):
            view = question.views.get(group)
            for k, candidate in enumerate(view.candidates if view else ()):
                assert asked is not None
                label[g, x, k] = truth_of(candidate.answer, asked) or 0.0
    return label


def ranking_quality(score_GXK: Tensor, label_GXK: Tensor) -> dict[str, Tensor]:
    """AUC and top-1 of every (group, question), NaN where it has none, shape (G, X)."""
    true, false = label_GXK == 1, label_GXK == 0
    above = score_GXK.unsqueeze(-1) - score_GXK.unsqueeze(-2)
    pair = true.unsqueeze(-1) & false.unsqueeze(-2)
    won = ((above > 0).float() + 0.5 * (above == 0).float()) * pair
    auc = won.sum((-1, -2)) / pair.sum((-1, -2))
    known = ~label_GXK.isnan()
    first = score_GXK.nan_to_num(-1e9).masked_fill(~known, -1e9).argmax(-1, keepdim=True)
    top = label_GXK.gather(-1, first).squeeze(-1)
    return {"auc": auc, "top-1": top}


def compare(log: Log, num_seeds: int) -> None:
    """Prints one line per objective and critic; differences are paired over questions."""
    encoder = DialogueEncoder(log.questions, log.groups, log.beliefs, count_turns(log.rows))
    label_GXK = true_candidates(log)
    control = ranking_quality(candidate_rewards(log.tensors, CONTROL), label_GXK)
    for objective, weights in OBJECTIVES.items():
        transitions = dialogue_transitions(log.rows, encoder, weights)
        bar: Mapping[str, Tensor] = {}
        for name, config in CRITICS.items():
            started = time.perf_counter()
            qualities = []
            for seed in range(num_seeds):
                values = fit_values(transitions, config, seed)
                q = turn_zero_values(values, log.borrowed, log.tensors, encoder, weights)
                qualities.append(ranking_quality(q, label_GXK))
            wait_s = (time.perf_counter() - started) / num_seeds
            mean = {e: torch.stack([q[e] for q in qualities]).mean(0) for e in EVENTS}
            bar = bar or mean
            shown = "  ".join(lines(mean, bar, log.groups))
            print(f"{objective:6} {name:25} {shown}  {wait_s:.1f} s")
        if objective == "both":
            shown = "  ".join(lines(control, bar, log.groups))
            print(f"{objective:6} {'one turn, (2 T + P) / 3':25} {shown}")


def lines(
    mean: Mapping[str, Tensor], bar: Mapping[str, Tensor], groups: Sequence[str]
) -> list[str]:
    """AUC and top-1, each with its difference to the bar and that difference's standard error."""
    parts = []
    for event in EVENTS:
        difference_X = (mean[event] - bar[event]).nanmean(0)
        difference_X = difference_X[~difference_X.isnan()]
        error = float(difference_X.std() / len(difference_X) ** 0.5)
        parts.append(
            f"{event} {float(mean[event].nanmean()):.4f} "
            f"({float(difference_X.mean()):+.4f} se {error:.4f})"
        )
    top_G = mean["top-1"].nanmean(-1).tolist()
    return [*parts, " ".join(f"{g} {v:.3f}" for g, v in zip(groups, top_G, strict=True))]


def main() -> None:
    """Prints the comparison and the externality."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--value-seeds", type=int, default=3)
    arguments = parser.parse_args()
    log = read_log(arguments.run)
    print(f"{arguments.run}: {len(log.hidden)} hidden questions, {len(log.rows)} joint turns")
    compare(log, arguments.value_seeds)
    found = externality(log.rows, log.questions, log.groups, log.beliefs, ValueConfig(), 0)
    for group, figures in found.items():
        print(f"externality of {group}: " + "  ".join(f"{k} {v:+.3f}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
