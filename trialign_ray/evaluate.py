"""Stage 6, evaluate: each group's adapter alone, one turn, held-out questions.

Shapes: G groups, X questions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.groups import Group
from envs.judge import Judge
from envs.preferences import check_style
from envs.prompts import opening_messages
from envs.types import ABSTAIN, UNPARSED, Judgement, Message, PromptMode, Question
from trialign_ray.actors.workers import Workers
from trialign_ray.config import EvaluateConfig
from trialign_ray.engines import Decoding
from trialign_ray.ops.agreement import agreement, fleiss_kappa, krippendorff_alpha
from trialign_ray.ops.inconsistency import generalized_jsd
from trialign_ray.ops.statistics import (
    bootstrap_interval,
    cochran_q,
    gap_null,
    group_gap,
    mcnemar_holm,
)
from trialign_ray.seeds import derive_seed

NUM_SAMPLES = 4
Render = Callable[[Sequence[Message]], str]


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
    render: Render
    config: EvaluateConfig
    max_new_tokens: int
    batch_size: int
    seed: int


def answer_questions(
    protocol: Protocol, workers: Workers, model: str, mode: PromptMode
) -> Answers:
    """Greedy answers of `model` to every test question under every group's prompt."""
    decoding = Decoding(0.0, protocol.max_new_tokens, protocol.batch_size)
    prompts = {g.name: _prompts(protocol, g, mode) for g in protocol.groups}
    said = workers.on_groups(
        "generate", {name: (model, texts, decoding) for name, texts in prompts.items()}
    )
    texts = {name: [u.text for u in utterances] for name, utterances in said.items()}
    judged = {
        name: [protocol.judge(name, q, t) for q, t in zip(protocol.questions, own, strict=True)]
        for name, own in texts.items()
    }
    return Answers(texts, judged)


def _prompts(protocol: Protocol, group: Group, mode: PromptMode) -> list[str]:
    return [protocol.render(opening_messages(q.text, mode, group)) for q in protocol.questions]


def evaluate_model(protocol: Protocol, workers: Workers, model: str) -> dict[str, Any]:
    """Metrics of one model (see `evaluation.json` in the README), with its per-question record."""
    modes = protocol.config.modes
    by_mode = {mode: answer_questions(protocol, workers, model, mode) for mode in modes}
    main = by_mode[modes[0]]
    correct_GX, answer_GX, truth_index = truth_arrays(protocol, main)
    metrics: dict[str, Any] = {}
    if truth_index:
        metrics["truth"] = truth_metrics(protocol, main, correct_GX)
        metrics["consistency"] = {
            **agreement(correct_GX, answer_GX),
            "fleiss_kappa": fleiss_kappa(answer_GX),
            "krippendorff_alpha": krippendorff_alpha(answer_GX),
            "jsd": answer_divergence(protocol, workers, model, main, truth_index),
            "ci": {
                "all_correct": _interval(
                    protocol, correct_GX.all(0)[None].astype(float), _first_mean, "all_correct"
                )
            },
        }
    metrics["adherence"] = {m: adherence_metrics(protocol, a) for m, a in by_mode.items()}
    metrics["samples"] = _samples(protocol, main)
    metrics["per_question"] = {
        "question_ids": [protocol.questions[x].id for x in truth_index],
        "correct": {
            g.name: correct_GX[i].astype(int).tolist() for i, g in enumerate(protocol.groups)
        },
        "adherence": {
            g.name: _kept_all(protocol, main, g).astype(int).tolist() for g in protocol.groups
        },
    }
    return metrics


def _samples(protocol: Protocol, answers: Answers) -> dict[str, Any]:
    """A few questions, spread over the test split, with what each group hears and if it is true."""
    step = max(1, len(protocol.questions) // NUM_SAMPLES)
    chosen = range(0, len(protocol.questions), step)[:NUM_SAMPLES]
    return {
        "questions": [protocol.questions[x].text for x in chosen],
        "by_group": {
            g: [
                {"text": answers.texts[g][x], "truth": answers.judged[g][x].truth} for x in chosen
            ]
            for g in answers.texts
        },
    }


def truth_arrays(
    protocol: Protocol, answers: Answers
) -> tuple[NDArray[np.bool_], NDArray[np.int_], list[int]]:
    """correct_GX, answer ids (one vocabulary for all questions, as kappa and alpha need it), and the
    indices of questions that have a truth."""
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
        metrics=lambda y_true, y_pred: float(np.mean(y_pred)),
        y_true=np.ones(scores.size),
        y_pred=scores.ravel(),
        sensitive_features=np.repeat(names, scores.shape[1]),
    )
    null, p_value = gap_null(
        scores, protocol.config.num_resamples, derive_seed(protocol.seed, "evaluate", "gap")
    )
    sizes = np.array([g.prior_weight for g in protocol.groups])
    return {
        "by_group": {g: float(frame.by_group[g]) for g in names},
        "worst": float(frame.group_min()),
        "mean": float(scores.mean()),
        "population_mean": float((sizes / sizes.sum() * scores.mean(-1)).sum()),
        "gap": group_gap(scores),
        "gap_null": null,
        "gap_p": p_value,
        "cochran_q_p": cochran_q(correct_GX),
        "ci": {
            "by_group": {
                g: _interval(protocol, scores[i : i + 1], _first_mean, "truth", g)
                for i, g in enumerate(names)
            },
            "worst": _interval(protocol, scores, _worst_mean, "worst"),
        },
        "abstained": {g: _share(answers.judged[g], ABSTAIN) for g in names},
        "unparsed": {g: _share(answers.judged[g], UNPARSED) for g in names},
    }


def adherence_metrics(protocol: Protocol, answers: Answers) -> dict[str, Any]:
    """Share of answers that keep every style rule of the group; swap: that minus the mean share
    that keeps every rule of another group (0: the answers are nobody's in particular)."""
    own = {g.name: _kept_all(protocol, answers, g) for g in protocol.groups}
    by_group = {name: float(kept.mean()) for name, kept in own.items()}
    swap = {}
    for group in protocol.groups:
        others = [
            float(_kept_all(protocol, answers, group, other).mean())
            for other in protocol.groups
            if other is not group
        ]
        swap[group.name] = by_group[group.name] - float(np.mean(others)) if others else float("nan")
    return {
        "by_group": by_group,
        "worst": min(by_group.values()),
        "swap": swap,
        "ci": {
            name: _interval(protocol, kept[None].astype(float), _first_mean, "adherence", name)
            for name, kept in own.items()
        },
    }


def _kept_all(
    protocol: Protocol, answers: Answers, group: Group, rules_of: Group | None = None
) -> NDArray[np.bool_]:
    style = (rules_of or group).style
    pairs = zip(answers.texts[group.name], answers.judged[group.name], strict=True)
    return np.array([all(check_style(t, j.parsed_answer, style).values()) for t, j in pairs])


def answer_divergence(
    protocol: Protocol, workers: Workers, model: str, answers: Answers, index: Sequence[int]
) -> float:
    """Mean generalised Jensen-Shannon divergence of the groups' answer distributions, in nats.

    A question's answers are the gold and every answer that a group gave. Each is put into the words
    of the group's own reply and scored by the model; a softmax makes it a distribution.
    """
    names = [g.name for g in protocol.groups]
    options: list[list[str]] = []
    for x in index:
        question = protocol.questions[x]
        given = {answers.judged[g][x].parsed_answer for g in names} - {ABSTAIN, UNPARSED}
        options.append(sorted(given | {question.gold[0]}))
    arguments = {}
    for group in protocol.groups:
        prompts = _prompts(protocol, group, protocol.config.modes[0])
        texts = [
            [_restate(answers.texts[group.name][x], answers.judged[group.name][x], z) for z in zs]
            for x, zs in zip(index, options, strict=True)
        ]
        arguments[group.name] = (model, [prompts[x] for x in index], texts)
    scores = workers.on_groups("score", arguments)
    divergences = []
    for column in range(len(index)):
        logprob_GY = torch.tensor(
            [[s.logprob for s in scores[g][column]] for g in names], dtype=torch.float64
        )
        divergences.append(float(generalized_jsd(logprob_GY.softmax(-1))))
    return float(np.mean(divergences))


def _restate(text: str, judgement: Judgement, answer: str) -> str:
    said = judgement.parsed_answer
    return text.replace(said, answer) if said in text else answer


def compare_models(
    protocol: Protocol, before: dict[str, Any], after: dict[str, Any]
) -> dict[str, Any]:
    """Paired differences after - before, with intervals over questions, and McNemar by group."""
    names = [g.name for g in protocol.groups]
    truth = [
        np.array([m["per_question"]["correct"][g] for g in names], dtype=float)
        for m in (before, after)
    ]
    style = [
        np.array([m["per_question"]["adherence"][g] for g in names], dtype=float)
        for m in (before, after)
    ]
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
        "adherence_by_group": _by_group_difference(protocol, names, style),
        "mcnemar_holm_p": dict(
            zip(names, mcnemar_holm(truth[0] > 0, truth[1] > 0), strict=True)
        ),
    }


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


def _difference(protocol: Protocol, scores: NDArray[np.float64], statistic, name: str) -> Any:
    return {
        "difference": float(statistic(scores)),
        "ci": _interval(protocol, scores, statistic, "difference", name),
    }


def _interval(protocol: Protocol, scores: NDArray[np.float64], statistic, *what: str):
    return bootstrap_interval(
        scores,
        statistic,
        protocol.config.confidence,
        protocol.config.num_resamples,
        derive_seed(protocol.seed, "evaluate", *what) % 2**32,
    )


def _first_mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores[0].mean(-1)


def _worst_mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores.mean(-1).min(0)


def _share(judged: Sequence[Judgement], answer: str) -> float:
    return float(np.mean([j.parsed_answer == answer for j in judged]))
