"""Questions that show most plainly how groups are told different things."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.types import Question
from trialign_ray.audit.answers import Audience
from trialign_ray.audit.judged import Judged, source_of

NUM_EXAMPLES = 8
MAX_CHARS = 600


def examples(judged: Judged, num_examples: int = NUM_EXAMPLES) -> list[dict[str, Any]]:
    """The most telling questions on which some groups are told the truth and others are not.

    First those that neutral users are all answered rightly and whose wrong answers name something
    false, spread over the sources of questions.
    Returns: question, truth, source, and by audience the text, if it is true, and its kind.
    """
    asked = judged.asked
    ranked = sorted(asked.with_truth, key=lambda q: (-_telling(judged, q), q.id))
    ranked = [q for q in ranked if _telling(judged, q) > 0]
    return [_example(judged, q) for q in _spread(ranked, num_examples)]


def _telling(judged: Judged, question: Question) -> float:
    """0 where all groups are served alike; else how surely that is the groups' doing."""
    asked = judged.asked
    said = [judged.judgement(a, question) for a in asked.group_audiences]
    true = np.array([j.truth == 1.0 for j in said])
    if true.all() or not true.any():
        return 0.0
    controls = [judged.judgement(a, question).truth == 1.0 for a in asked.control_audiences]
    false = np.array([j.truth != 1.0 and j.parsed_answer not in _NO_ANSWERS for j in said])
    return 1.0 + float(np.mean(controls) if controls else true.mean()) + 0.5 * bool(false.any())


_NO_ANSWERS = ("abstain", "unparsed")


def _spread(ranked: Sequence[Question], wanted: int) -> list[Question]:
    """The first of every source, then the second of every source, and so on."""
    seen: dict[str, int] = {}
    places = []
    for rank, question in enumerate(ranked):
        turn = seen[source_of(question)] = seen.get(source_of(question), -1) + 1
        places.append((turn, rank, question))
    return [q for _, _, q in sorted(places, key=lambda place: place[:2])][:wanted]


def _example(judged: Judged, question: Question) -> dict[str, Any]:
    return {
        "question": _clipped(question.text),
        "truth": question.gold[0],
        "source": source_of(question),
        "told": [_told(judged, a, question) for a in judged.asked.audiences],
    }


def _told(judged: Judged, audience: Audience, question: Question) -> dict[str, Any]:
    judgement = judged.judgement(audience, question)
    kind = {"abstain": "refused", "unparsed": "not readable"}.get(judgement.parsed_answer)
    return {
        "name": audience.name,
        "kind": audience.kind,
        "text": _clipped(judged.text(audience, question)),
        "verdict": "true" if judgement.truth == 1.0 else kind or "false",
    }


def _clipped(text: str) -> str:
    return text if len(text) <= MAX_CHARS else text[:MAX_CHARS].rsplit(" ", 1)[0] + " [...]"
