"""Off-policy evaluation, the log's part: first answers among all that a group can say.

Candidates of (group, question): every utterance that the group logged at any turn, told apart by
the tokens that were sampled, and peers' answers in the group's own words, as in `candidates`.

Shapes: N first answers of one group, X prompts of the log, K candidates (not padded here).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trialign_ray.candidates import NO_ANSWERS, JointQuestion, borrow_peers, join_questions
from trialign_ray.dataset import read_dataset
from trialign_ray.engines import Utterance
from trialign_ray.off_policy import FirstAnswers, first_answers
from trialign_ray.reference_scores import TextScore, read_scores
from trialign_ray.run_directory import RunDirectory
from trialign_ray.truth_heads import Beliefs

Floats = NDArray[np.float64]
Scores = Mapping[tuple[str, str, str], TextScore]


@dataclass(frozen=True)
class Said:
    """An utterance that the log holds or could hold, and what it is worth; nan: not known.

    only_episode: the only episode that holds it; "" where several do, or none (a borrowed answer).
    """

    utterance: Utterance
    truth: float
    personalization: float
    only_episode: str


@dataclass(frozen=True)
class GroupLog:
    """One group's first answers and what else it can say to the same prompts.

    contexts_X: (question id, prompt). question_N, candidate_N: where each first answer stands among
    the candidates; -1 where the log holds no tokens of it. reference_N: log-probability of its text
    under the behaviour model, nan where it has none.
    """

    answers: FirstAnswers
    contexts_X: tuple[tuple[str, str], ...]
    candidates_XK: tuple[tuple[Said, ...], ...]
    question_N: NDArray[np.int_]
    candidate_N: NDArray[np.int_]
    reference_N: Floats


def group_logs(run: RunDirectory, groups: Sequence[str]) -> dict[str, GroupLog]:
    """By group, from the run's log, reference scores and, where it has one, truth head. Raises:
    DataError."""
    rows = read_dataset(run.log_file)
    scores = read_scores(run.scores_file, run.log_file)
    believed = run.root / "critic" / "truth_head.json"
    beliefs: Beliefs = json.loads(believed.read_text("utf-8")) if believed.is_file() else {}
    borrowed = [borrow_peers(q, _liked(q, scores)) for q in join_questions(rows)]
    logs = {}
    for group in groups:
        candidates = logged_candidates(rows, group, beliefs)
        for question in borrowed:
            own = borrowed_candidates(question, group, beliefs.get(question.id))
            candidates[question.id] = (*candidates.get(question.id, ()), *own)
        answers = first_answers(rows, group)
        pairs = zip(answers.question_ids, answers.texts, strict=True)
        found = [scores.get((question, group, text)) for question, text in pairs]
        reference_N = np.array([np.nan if s is None else s.logprob for s in found])
        logs[group] = place_answers(answers, candidates, reference_N)
    return logs


def _liked(question: JointQuestion, scores: Scores) -> Any:
    return lambda group, text: scores[question.id, group, text].personalization


def logged_candidates(
    rows: Sequence[dict[str, Any]], group: str, beliefs: Beliefs
) -> dict[str, tuple[Said, ...]]:
    """What the group said to each question, at any turn, each utterance once."""
    found: dict[str, dict[Utterance, Said]] = {}
    for row in rows:
        i = row["group_ids"].index(group)
        ids = tuple(row["action_token_ids"][i] or ())
        if not (row["present"][i] and ids):
            continue
        believed = beliefs.get(row["question_id"])
        truth = believed_truth(row["parsed_answer"][i], row["r_truth"][i], believed)
        said = Said(ids, truth, _known(row["r_pers"][i]), row["episode_id"])
        own = found.setdefault(row["question_id"], {})
        if own.setdefault(ids, said).only_episode != said.only_episode:
            own[ids] = replace(own[ids], only_episode="")
    return {question: tuple(own.values()) for question, own in found.items()}


def borrowed_candidates(
    question: JointQuestion, group: str, believed: Mapping[str, float | None] | None
) -> list[Said]:
    """Peers' answers that the group never gave, in its own words."""
    view = question.views.get(group)
    return [
        Said(c.text, believed_truth(c.answer, c.truth, believed), _known(c.personalization), "")
        for c in (view.candidates if view else ())
        if c.count == 0
    ]


def believed_truth(
    answer: str, verified: float | None, believed: Mapping[str, float | None] | None
) -> float:
    """The gold's verdict where it is visible, else the head's probability; no answer is no truth.

    Args: believed: of the question's answers; None where nothing is true or false, or the run
    believes no head.
    Returns: nan where neither says anything.
    """
    if verified is not None:
        return verified
    if believed is None or None in believed.values():
        return np.nan
    return 0.0 if answer in NO_ANSWERS else _known(believed.get(answer))


def _known(value: float | None) -> float:
    return np.nan if value is None else value


def place_answers(
    answers: FirstAnswers, candidates: Mapping[str, Sequence[Said]], reference_N: Floats
) -> GroupLog:
    """First answers placed among the candidates of their question."""
    pairs = list(zip(answers.question_ids, answers.prompts, strict=True))
    contexts = tuple(dict.fromkeys(pairs))
    place_of = {context: x for x, context in enumerate(contexts)}
    candidates_XK = tuple(tuple(candidates.get(question, ())) for question, _ in contexts)
    index_X = [{c.utterance: k for k, c in enumerate(row)} for row in candidates_XK]
    question = [place_of[pair] for pair in pairs]
    candidate = [
        index_X[x].get(ids, -1) for x, ids in zip(question, answers.token_ids, strict=True)
    ]
    return GroupLog(
        answers=answers,
        contexts_X=contexts,
        candidates_XK=candidates_XK,
        question_N=np.array(question, dtype=int),
        candidate_N=np.array(candidate, dtype=int),
        reference_N=reference_N,
    )
