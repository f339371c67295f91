"""Stage 3a, scoring: what the behaviour model and the raters say of every candidate, asked once."""

from collections.abc import Sequence
from typing import Any

from envs.judge import Judge
from envs.types import Question
from trialign_ray.actors.workers import Workers
from trialign_ray.candidates import JointQuestion, join_questions, texts_to_score


def score_candidates(
    rows: Sequence[dict[str, Any]], workers: Workers, asked: Sequence[Question], judge: Judge
) -> list[dict[str, Any]]:
    """Scores of every candidate and of peers' answers restated, by each group's own agent.

    What is needed if only first turns of the log are used is scored as well, so that one file
    serves both.
    """
    questions = join_questions(rows)
    first_turns = {q.id: q for q in join_questions([r for r in rows if r["turn"] == 0])}
    wanted: dict[str, list[tuple[JointQuestion, list[str]]]] = {}
    for group in workers.groups:
        texts = [(q, _texts(q, first_turns.get(q.id), group)) for q in questions]
        wanted[group] = [(q, own) for q, own in texts if own]
    results = workers.on_groups(
        "score",
        {
            g: ("behaviour", [q.views[g].prompt for q, _ in own], [t for _, t in own])
            for g, own in wanted.items()
        },
    )
    by_id = {q.id: q for q in asked}
    judge.prepare(
        [(g, by_id[q.id], t) for g, own in wanted.items() for q, texts in own for t in texts]
    )
    return [
        {
            "question_id": q.id,
            "group": g,
            "text": text,
            "logprob": s.logprob,
            "personalization": judge(g, by_id[q.id], text).personalization,
        }
        for g, own in wanted.items()
        for (q, texts), row in zip(own, results[g], strict=True)
        for text, s in zip(texts, row, strict=True)
    ]


def _texts(question: JointQuestion, first_turn: JointQuestion | None, group: str) -> list[str]:
    more = texts_to_score(first_turn, group) if first_turn else []
    return list(dict.fromkeys([*texts_to_score(question, group), *more]))
