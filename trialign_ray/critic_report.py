"""How good the truth head is on questions whose gold it never saw. A report, never an input."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from envs.types import Question
from envs.verifiers import truth_of
from trialign_ray.candidates import NO_ANSWERS
from trialign_ray.config import Config
from trialign_ray.dataset import read_dataset
from trialign_ray.run_directory import RunDirectory
from trialign_ray.setting import Setting
from trialign_ray.truth_heads import Beliefs

NUM_BINS = 10
MIN_PROBABILITY = 1e-6


def truth_head_report(run: RunDirectory, setting: Setting, config: Config) -> dict[str, Any]:
    """What the run's truth head, and every other, is worth on hidden-gold questions of the log.

    vote_accuracy: the commonest answer is true, which needs no critic: the bar that the head must
    clear. coverage: share of questions for which any group ever gave the true answer, an upper
    bound on the accuracy. heads: the scores of every head, by name. The rest: `score_beliefs` of
    the head that the run used.
    """
    asked = setting.log_questions(config.collect.label_fraction, config.seed)
    hidden = {q.id: q for q in asked if q.has_truth and not q.gold_visible}
    beliefs = _read(run, "truth_head.json")
    votes = plurality_votes(read_dataset(run.log_file))
    vote_hits = [i in votes and truth_of(votes[i], q) == 1.0 for i, q in hidden.items()]
    covered = [any(truth_of(z, q) == 1.0 for z in beliefs[i]) for i, q in hidden.items()]
    scores = score_beliefs(beliefs, hidden)
    return {
        "num_hidden": len(hidden),
        "accuracy": scores["accuracy"],
        "vote_accuracy": _mean(vote_hits),
        "coverage": _mean(covered),
        "brier": scores["brier"],
        "ece": scores["ece"],
        "heads": {
            name: score_beliefs(of_head, hidden)
            for name, of_head in _read(run, "truth_heads.json").items()
        },
    }


def score_beliefs(beliefs: Beliefs, hidden: dict[str, Question]) -> dict[str, float | None]:
    """How true a head's beliefs are on questions whose gold it never saw.

    accuracy: the most probable answer is true. brier: mean over (question, answer) of (p - y)^2.
    ece: over 10 equal bins of p (Guo et al. 2017, arXiv 1706.04599, eq. 3). log_loss: mean over
    questions of -log of the probability given to what is true, which may be that none of the logged
    answers is; in nats, p at least 1e-6. Each is None if the head knows nothing of any question.
    """
    scored = {
        i: [(p, truth_of(z, question) or 0.0) for z, p in beliefs[i].items() if p is not None]
        for i, question in hidden.items()
        if None not in beliefs[i].values()
    }
    pairs = [pair for own in scored.values() for pair in own]
    hits = [bool(own) and max(own, key=lambda pair: pair[0])[1] == 1.0 for own in scored.values()]
    return {
        "accuracy": _mean(hits),
        "brier": _mean([(p - y) ** 2 for p, y in pairs]),
        "ece": _calibration_error(pairs) if pairs else None,
        "log_loss": _mean([_surprise(own) for own in scored.values()]),
    }


def plurality_votes(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The commonest answer to each question over all groups, turns and episodes."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row["question_id"]].update(z for z in row["parsed_answer"] if z not in NO_ANSWERS)
    return {question: c.most_common(1)[0][0] for question, c in counts.items() if c}


def _read(run: RunDirectory, name: str) -> Any:
    return json.loads((run.root / "critic" / name).read_text(encoding="utf-8"))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _surprise(pairs: list[tuple[float, float]]) -> float:
    true = [p for p, y in pairs if y == 1.0]
    probability = sum(true) if true else 1.0 - sum(p for p, _ in pairs)
    return -math.log(max(probability, MIN_PROBABILITY))


def _calibration_error(pairs: list[tuple[float, float]]) -> float:
    error = 0.0
    for b in range(NUM_BINS):
        own = [(p, y) for p, y in pairs if min(int(p * NUM_BINS), NUM_BINS - 1) == b]
        if own:
            confidence = sum(p for p, _ in own) / len(own)
            frequency = sum(y for _, y in own) / len(own)
            error += len(own) / len(pairs) * abs(confidence - frequency)
    return error
