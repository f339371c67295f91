"""Stage 6, evaluate: each group's adapter alone, one turn, held-out questions.

Shapes: G groups, X questions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from envs.groups import Group
from envs.prompts import question_messages
from envs.types import ABSTAIN, UNPARSED, PromptMode
from trialign_ray.actors.workers import Workers
from trialign_ray.candidates import restate
from trialign_ray.controls import evaluate_controls
from trialign_ray.engines import Decoding
from trialign_ray.letter_answers import shown_options
from trialign_ray.metrics import (
    Answers,
    Protocol,
    adherence_metrics,
    adherence_record,
    compare_models,
    first_mean,
    interval,
    truth_arrays,
    truth_metrics,
)
from trialign_ray.ops.agreement import agreement, fleiss_kappa, krippendorff_alpha
from trialign_ray.ops.inconsistency import generalized_jsd
from trialign_ray.option_likelihood import (
    Choice,
    by_likelihood,
    likeliest_options,
    options_to_score,
)

NUM_SAMPLES = 4


def answer_questions(protocol: Protocol, workers: Workers, model: str, mode: PromptMode) -> Answers:
    """Greedy answers of `model` to every test question under every group's prompt.

    Where `evaluate.multiple_choice` is not generate, a question with options is judged by the
    option that the model finds likeliest; its text stays what the model says, of which style is
    measured.
    """
    decoding = Decoding(0.0, protocol.max_new_tokens, protocol.batch_size)
    prompts = {g.name: _prompts(protocol, g, mode) for g in protocol.groups}
    said = workers.on_groups(
        "generate", {name: (model, texts, decoding) for name, texts in prompts.items()}
    )
    texts = {name: [u.text for u in utterances] for name, utterances in said.items()}
    asked = protocol.questions
    protocol.judge.prepare(
        [(name, q, t) for name, own in texts.items() for q, t in zip(asked, own, strict=True)]
    )
    judged = {
        name: [protocol.judge(name, q, t) for q, t in zip(protocol.questions, own, strict=True)]
        for name, own in texts.items()
    }
    if protocol.config.multiple_choice != "generate":
        for name, choices in _likeliest(protocol, workers, model, prompts).items():
            for x, choice in choices.items():
                given = choice.judged(protocol.questions[x])
                judged[name][x] = replace(given, personalization=judged[name][x].personalization)
    return Answers(texts, judged)


def _likeliest(
    protocol: Protocol, workers: Workers, model: str, prompts: Mapping[str, list[str]]
) -> dict[str, dict[int, Choice]]:
    """The likeliest option of every question with options, by group and index of the question."""
    index = [x for x, q in enumerate(protocol.questions) if by_likelihood(q)]
    asked, by = [protocol.questions[x] for x in index], protocol.config.multiple_choice
    if not asked:
        return {}
    candidates = options_to_score(asked, by)
    scores = workers.on_groups(
        "score",
        {name: (model, [own[x] for x in index], candidates) for name, own in prompts.items()},
    )
    return {
        name: dict(zip(index, likeliest_options(asked, own, by), strict=True))
        for name, own in scores.items()
    }


def _prompts(protocol: Protocol, group: Group, mode: PromptMode) -> list[str]:
    return [protocol.render(question_messages(q, mode, group)) for q in protocol.questions]


def evaluate_models(
    protocol: Protocol,
    workers: Workers,
    folders: Mapping[str, str],
    controls: Sequence[Group],
    on_model: Callable[[int, str], None],
) -> dict[str, Any]:
    """Metrics of every base model and of the adapters ("models"), those of users without a group
    ("controls"), and what the adapters changed ("aligned_minus_behaviour").

    Args: folders: of the base models, "behaviour" among them; one model in two roles is asked once.
        on_model: told how many models are done, and the last one's name.
    """
    models: dict[str, Any] = {}
    first_of: dict[str, str] = {}
    for name in (*folders, "aligned"):
        twin = first_of.setdefault(folders.get(name, name), name)
        models[name] = models[twin] if twin in models else evaluate_model(protocol, workers, name)
        on_model(len(models), name)
    return {
        "num_questions": len(protocol.questions),
        "num_truth_questions": sum(q.has_truth for q in protocol.questions),
        "models": models,
        "controls": evaluate_controls(protocol, workers, controls),
        "aligned_minus_behaviour": compare_models(protocol, models["behaviour"], models["aligned"]),
    }


def evaluate_model(protocol: Protocol, workers: Workers, model: str) -> dict[str, Any]:
    """Metrics of one model (see `evaluation.json` in the README), with its per-question record."""
    modes = protocol.config.modes
    by_mode = {mode: answer_questions(protocol, workers, model, mode) for mode in modes}
    index = truth_arrays(protocol, by_mode[modes[0]])[2]
    jsd = answer_divergence(protocol, workers, model, by_mode[modes[0]], index) if index else None
    return answer_metrics(protocol, by_mode, jsd)


def answer_metrics(
    protocol: Protocol, by_mode: Mapping[str, Answers], jsd: float | None
) -> dict[str, Any]:
    """Metrics of answers that were given under each prompt mode, the first of which is the main
    one. jsd: divergence of answer distributions, None where there are only answers."""
    main = next(iter(by_mode.values()))
    correct_GX, answer_GX, truth_index = truth_arrays(protocol, main)
    metrics: dict[str, Any] = {}
    if truth_index:
        metrics["truth"] = truth_metrics(protocol, main, correct_GX)
        metrics["consistency"] = {
            **agreement(correct_GX, answer_GX),
            "fleiss_kappa": fleiss_kappa(answer_GX),
            "krippendorff_alpha": krippendorff_alpha(answer_GX),
            "jsd": jsd,
            "ci": {
                "all_correct": interval(
                    protocol, np.all(correct_GX, 0, keepdims=True) * 1.0, first_mean, "all_correct"
                )
            },
        }
    metrics["adherence"] = {m: adherence_metrics(protocol, a) for m, a in by_mode.items()}
    metrics["preference"] = {m: preference_by_group(a) for m, a in by_mode.items()}
    metrics["samples"] = _samples(protocol, main)
    metrics["per_question"] = {
        "question_ids": [protocol.questions[x].id for x in truth_index],
        "correct": {
            g.name: correct_GX[i].astype(int).tolist() for i, g in enumerate(protocol.groups)
        },
        "answer": {
            g.name: [main.judged[g.name][x].parsed_answer for x in truth_index]
            for g in protocol.groups
        },
        "adherence": adherence_record(protocol, main),
    }
    return metrics


def preference_by_group(answers: Answers) -> dict[str, float | None]:
    """How well the configured `preferences` like the answers to each group, in [0, 1]; None where
    no scorer has an opinion."""
    liked = {
        name: [j.personalization for j in own if j.personalization is not None]
        for name, own in answers.judged.items()
    }
    return {name: float(np.mean(values)) if values else None for name, values in liked.items()}


def _samples(protocol: Protocol, answers: Answers) -> dict[str, Any]:
    """A few questions, spread over the test split, with what each group hears and if it is true."""
    step = max(1, len(protocol.questions) // NUM_SAMPLES)
    chosen = range(0, len(protocol.questions), step)[:NUM_SAMPLES]
    return {
        "questions": [protocol.questions[x].text for x in chosen],
        "by_group": {
            g: [{"text": answers.texts[g][x], "truth": answers.judged[g][x].truth} for x in chosen]
            for g in answers.texts
        },
    }


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
    shown = [shown_options(q.text) for q in protocol.questions]
    for group in protocol.groups:
        prompts = _prompts(protocol, group, protocol.config.modes[0])
        said, judged = answers.texts[group.name], answers.judged[group.name]
        texts = [
            [restate(said[x], judged[x].parsed_answer, z, shown[x]) for z in zs]
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
