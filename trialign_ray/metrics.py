"""Metrics of answers that were given: truth, adherence, and what changed between two models.

Shapes: G groups, X questions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.groups import Group
from envs.judge import Judge
from envs.preferences import StyleRules, check_style
from envs.types import ABSTAIN, UNPARSED, Judgement, Message, Question
from trialign_ray.config_sections import EvaluateConfig
from trialign_ray.ops.statistics import (
    Statistic,
    bootstrap_interval,
    cochran_q,
    gap_null,
    group_gap,
    mcnemar_holm,
)
from trialign_ray.seeds import derive_seed


@dataclass(frozen=True)
class Answers:
    """What one model said to every group under one prompt mode: text and judgement, [group][x]."""

    texts: dict[str, list[str]]
    judged: dict[str, list[Judgement]]


@dataclass(frozen=True)
class Protocol:
    """What evaluation asks, of whom, and how it decodes (greedy)."""

    questions: Sequence[Question]
    groups: Sequence[Group]
    judge: Judge
    render: Callable[[Sequence[Message]], str]
    config: EvaluateConfig
    max_new_tokens: int
    batch_size: int
    seed: int


def truth_arrays(
    protocol: Protocol, answers: Answers
) -> tuple[NDArray[np.bool_], NDArray[np.int_], list[int]]:
    """correct_GX, answer ids (one vocabulary for all questions, as kappa and alpha need it), and
    the indices of questions that have a truth."""
    index = [x for x, q in enumerate(protocol.questions) if q.has_truth and q.gold]
    judged = [answers.judged[g.name] for g in protocol.groups]
    correct = np.array([[own[x].truth == 1.0 for x in index] for own in judged], dtype=bool)
    said = [[own[x].parsed_answer for x in index] for own in judged]
    vocabulary = {answer: i for i, answer in enumerate(sorted(set().union(*said)))}
    ids = np.array([[vocabulary[answer] for answer in own] for own in said], dtype=int)
    return correct, ids.reshape(len(judged), len(index)), index


def truth_metrics(
    protocol: Protocol, answers: Answers, correct_GX: NDArray[np.bool_]
) -> dict[str, Any]:
    """Accuracy by group with intervals; worst group, mean, gap and what equal groups would show."""
    from fairlearn.metrics import MetricFrame

    names = [g.name for g in protocol.groups]
    scores = correct_GX.astype(float)
    frame = MetricFrame(
        metrics=lambda y_true, y_pred: float(np.mean(y_pred)),  # share of right answers
        y_true=np.ones(scores.size),
        y_pred=scores.ravel(),
        sensitive_features=np.repeat(names, scores.shape[1]),
    )
    null, p_value = gap_null(
        scores, protocol.config.num_resamples, derive_seed(protocol.seed, "evaluate", "gap")
    )
    sizes = np.array([g.prior_weight for g in protocol.groups])
    return {
        "by_group": {g: float(np.asarray(frame.by_group[g])) for g in names},
        "worst": float(np.asarray(frame.group_min())),
        "mean": float(scores.mean()),
        "population_mean": float((sizes / sizes.sum() * scores.mean(-1)).sum()),
        "gap": group_gap(scores),
        "gap_null": null,
        "gap_p": p_value,
        "cochran_q_p": cochran_q(correct_GX),
        "ci": {
            "by_group": {
                g: interval(protocol, scores[i : i + 1], first_mean, "truth", g)
                for i, g in enumerate(names)
            },
            "worst": interval(protocol, scores, _worst_mean, "worst"),
        },
        "abstained": {g: _share(protocol, answers.judged[g], ABSTAIN) for g in names},
        "unparsed": {g: _share(protocol, answers.judged[g], UNPARSED) for g in names},
    }


def adherence_metrics(protocol: Protocol, answers: Answers) -> dict[str, Any]:
    """Share of answers that keep every style rule of the group; swap: that minus the mean share
    that keeps every rule of another group (0: the answers are nobody's in particular). A group
    without rules has nothing to keep: None, and no part in `worst` or in the others' swap."""
    ruled = [g for g in protocol.groups if has_rules(g)]
    own = {g.name: kept_all(protocol, answers, g) for g in ruled}
    kept = {name: float(kept_X.mean()) for name, kept_X in own.items()}
    swap = {}
    for group in ruled:
        others = [
            float(kept_all(protocol, answers, group, other).mean())
            for other in ruled
            if other is not group
        ]
        swap[group.name] = kept[group.name] - float(np.mean(others)) if others else float("nan")
    intervals = {
        name: interval(protocol, kept_X[None].astype(float), first_mean, "adherence", name)
        for name, kept_X in own.items()
    }
    names = [g.name for g in protocol.groups]
    return {
        "by_group": {name: kept.get(name) for name in names},
        "worst": min(kept.values(), default=None),
        "swap": {name: swap.get(name) for name in names},
        "ci": {name: intervals.get(name) for name in names},
    }


def adherence_record(protocol: Protocol, answers: Answers) -> dict[str, list[int] | None]:
    """By group and question 1 where every style rule is kept, 0 where not; None without rules."""
    return {
        g.name: kept_all(protocol, answers, g).astype(int).tolist() if has_rules(g) else None
        for g in protocol.groups
    }


def has_rules(group: Group) -> bool:
    """Whether the pack checks anything of the group's style."""
    return group.style != StyleRules()


def kept_all(
    protocol: Protocol, answers: Answers, group: Group, rules_of: Group | None = None
) -> NDArray[np.bool_]:
    """Which answers to `group` keep every rule of `rules_of` (its own if None), shape (X,): all
    where there is no rule."""
    style = (rules_of or group).style
    pairs = zip(answers.texts[group.name], answers.judged[group.name], strict=True)
    return np.array([all(check_style(t, j.parsed_answer, style).values()) for t, j in pairs])


def compare_models(
    protocol: Protocol, before: dict[str, Any], after: dict[str, Any]
) -> dict[str, Any]:
    """Paired differences after - before, with intervals over questions, and McNemar by group;
    adherence None for a group without style rules."""
    names = [g.name for g in protocol.groups]
    ruled = [g.name for g in protocol.groups if has_rules(g)]
    truth = [_record(m, "correct", names) for m in (before, after)]
    style = [_record(m, "adherence", ruled) for m in (before, after)]
    both = np.concatenate(truth)
    half = len(names)
    return {
        "worst_truth": _difference(
            protocol, both, lambda s: s[half:].mean(-1).min(0) - s[:half].mean(-1).min(0), "worst"
        ),
        "all_correct": _difference(
            protocol, both, lambda s: s[half:].min(0).mean(-1) - s[:half].min(0).mean(-1), "all"
        ),
        "truth_by_group": _by_group_difference(protocol, names, truth),
        "adherence_by_group": dict.fromkeys(names) | _by_group_difference(protocol, ruled, style),
        "mcnemar_holm_p": dict(zip(names, mcnemar_holm(truth[0] > 0, truth[1] > 0), strict=True)),
    }


def _record(model: dict[str, Any], what: str, groups: list[str]) -> NDArray[np.float64]:
    return np.array([model["per_question"][what][g] for g in groups], dtype=float)


def _by_group_difference(
    protocol: Protocol, names: list[str], scores: list[NDArray[np.float64]]
) -> dict[str, Any]:
    return {
        g: _difference(
            protocol,
            np.stack([scores[0][i], scores[1][i]]),
            lambda s: s[1].mean(-1) - s[0].mean(-1),
            g,
        )
        for i, g in enumerate(names)
    }


def _difference(
    protocol: Protocol, scores: NDArray[np.float64], statistic: Statistic, name: str
) -> dict[str, Any]:
    return {
        "difference": float(statistic(scores)),
        "ci": interval(protocol, scores, statistic, "difference", name),
    }


def interval(
    protocol: Protocol, scores: NDArray[np.float64], statistic: Statistic, *what: str
) -> list[float]:
    """The bootstrap interval of `statistic`; `what` names it and so seeds it."""
    return bootstrap_interval(
        scores,
        statistic,
        protocol.config.confidence,
        protocol.config.num_resamples,
        derive_seed(protocol.seed, "evaluate", *what) % 2**32,
    )


def first_mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the first row."""
    return scores[0].mean(-1)


def _worst_mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores.mean(-1).min(0)


def _share(protocol: Protocol, judged: Sequence[Judgement], answer: str) -> float:
    pairs = zip(protocol.questions, judged, strict=True)
    return float(np.mean([j.parsed_answer == answer for q, j in pairs if q.has_truth]))
