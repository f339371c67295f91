"""How good the truth head is on questions whose gold it never saw. A report, never an input."""

import json
from collections import Counter, defaultdict
from typing import Any

from envs.verifiers import truth_of
from trialign_ray.candidates import NO_ANSWERS
from trialign_ray.config import Config
from trialign_ray.dataset import read_dataset
from trialign_ray.run_directory import RunDirectory
from trialign_ray.setting import Setting

NUM_BINS = 10


def truth_head_report(run: RunDirectory, setting: Setting, config: Config) -> dict[str, Any]:
    """Accuracy, Brier score and expected calibration error on hidden-gold questions of the log.

    accuracy: the most probable answer is true. vote_accuracy: the same for the commonest answer,
    which needs no critic: the bar that the head must clear. brier: mean over (question,
    answer) of (p - y)^2. ece: over 10 equal bins of p (Guo et al. 2017, arXiv 1706.04599, eq. 3).
    coverage: share of questions for which any group ever gave the true answer, an upper bound on
    the accuracy.
    """
    path = run.root / "critic" / "truth_head.json"
    beliefs = json.loads(path.read_text(encoding="utf-8"))
    asked = setting.log_questions(config.collect.label_fraction, config.seed)
    hidden = {q.id: q for q in asked if q.has_truth and not q.gold_visible}
    votes = plurality_votes(read_dataset(run.log_file))
    hits, vote_hits, covered, pairs = 0, 0, 0, []
    for question_id, question in hidden.items():
        belief = beliefs[question_id]
        scored = [(p, truth_of(z, question) or 0.0) for z, p in belief.items()]
        pairs += scored
        covered += any(y for _, y in scored)
        hits += bool(scored) and max(scored, key=lambda pair: pair[0])[1] == 1.0
        vote = votes.get(question_id)
        vote_hits += vote is not None and truth_of(vote, question) == 1.0
    return {
        "num_hidden": len(hidden),
        "accuracy": hits / len(hidden) if hidden else None,
        "vote_accuracy": vote_hits / len(hidden) if hidden else None,
        "coverage": covered / len(hidden) if hidden else None,
        "brier": sum((p - y) ** 2 for p, y in pairs) / len(pairs) if pairs else None,
        "ece": _calibration_error(pairs) if pairs else None,
    }


def plurality_votes(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The commonest answer to each question over all groups, turns and episodes."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row["question_id"]].update(z for z in row["parsed_answer"] if z not in NO_ANSWERS)
    return {question: c.most_common(1)[0][0] for question, c in counts.items() if c}


def _calibration_error(pairs: list[tuple[float, float]]) -> float:
    error = 0.0
    for b in range(NUM_BINS):
        own = [(p, y) for p, y in pairs if min(int(p * NUM_BINS), NUM_BINS - 1) == b]
        if own:
            confidence = sum(p for p, _ in own) / len(own)
            frequency = sum(y for _, y in own) / len(own)
            error += len(own) / len(pairs) * abs(confidence - frequency)
    return error
