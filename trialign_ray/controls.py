"""Controls of the evaluation: users of whom nothing is known, and personas that must not matter.

A gap among groups counts only where it is larger than the gap among neutral personas, and a repair
must not be paid by the user who says nothing of themselves.

Shapes: C personas, X questions with a truth.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.groups import Group
from envs.prompts import opening_messages, question_messages
from envs.types import Question
from envs.verifiers import parse_answer, truth_of
from trialign_ray.actors.workers import Workers
from trialign_ray.engines import Decoding
from trialign_ray.metrics import Protocol
from trialign_ray.ops.statistics import gap_null, group_gap
from trialign_ray.option_likelihood import by_likelihood
from trialign_ray.seeds import derive_seed


def evaluate_controls(
    protocol: Protocol, workers: Workers, controls: Sequence[Group]
) -> dict[str, Any] | None:
    """Truth of the behaviour model for each control persona, with their gap; and of every model for
    a user without a persona. None if no question has a truth.

    All is read from what the model says: questions that the groups' answers are judged on by
    likelihood are left out, since the figures could not be compared.
    Returns: {"personas": {"by_control", "gap", "gap_null", "gap_p"} or None without controls,
    "no_persona": {"behaviour": x, "aligned": {group: x}}}.
    """
    by_what_is_said = protocol.config.multiple_choice == "generate"
    questions = [
        q
        for q in protocol.questions
        if q.has_truth and q.gold and (by_what_is_said or not by_likelihood(q))
    ]
    if not questions:
        return None
    neutral = [protocol.render(opening_messages(q.text, "none")) for q in questions]
    first = workers.groups[0]
    plain = _ask(protocol, workers, "behaviour", {first: neutral})[first]
    own = _ask(protocol, workers, "aligned", dict.fromkeys(workers.groups, neutral))
    return {
        "personas": _personas(protocol, workers, controls, questions) if controls else None,
        "no_persona": {
            "behaviour": _accuracy(questions, plain),
            "aligned": {g: _accuracy(questions, said) for g, said in own.items()},
        },
    }


def _personas(
    protocol: Protocol, workers: Workers, controls: Sequence[Group], questions: Sequence[Question]
) -> dict[str, Any]:
    """Personas are dealt out to the groups' agents, whose adapters are off."""
    shares = {g: list(controls[i :: len(workers.groups)]) for i, g in enumerate(workers.groups)}
    prompts = {
        agent: [
            protocol.render(question_messages(q, "explicit", control))
            for control in share
            for q in questions
        ]
        for agent, share in shares.items()
        if share
    }
    said = _ask(protocol, workers, "behaviour", prompts)
    correct: dict[str, list[bool]] = {}
    for agent, texts in said.items():
        for i, control in enumerate(shares[agent]):
            own = texts[i * len(questions) : (i + 1) * len(questions)]
            correct[control.name] = _correct(questions, own)
    correct_CX = np.array([correct[c.name] for c in controls], dtype=float)
    seed = derive_seed(protocol.seed, "evaluate", "controls")
    null, p_value = gap_null(correct_CX, protocol.config.num_resamples, seed)
    return {
        "by_control": {c.name: float(np.mean(correct[c.name])) for c in controls},
        "gap": group_gap(correct_CX),
        "gap_null": null,
        "gap_p": p_value,
    }


def _ask(
    protocol: Protocol, workers: Workers, model: str, prompts: dict[str, list[str]]
) -> dict[str, list[str]]:
    decoding = Decoding(0.0, protocol.max_new_tokens, protocol.batch_size)
    calls = {agent: (model, texts, decoding) for agent, texts in prompts.items()}
    said = workers.on_groups("generate", calls)
    return {agent: [u.text for u in utterances] for agent, utterances in said.items()}


def _correct(questions: Sequence[Question], texts: Sequence[str]) -> list[bool]:
    pairs = zip(questions, texts, strict=True)
    return [truth_of(parse_answer(text, q), q) == 1.0 for q, text in pairs]


def _accuracy(questions: Sequence[Question], texts: Sequence[str]) -> float:
    return float(np.mean(_correct(questions, texts)))
