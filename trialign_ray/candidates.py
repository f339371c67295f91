"""Stage 3a, candidates: what each group said about each question, seen jointly.

Candidates of (group, question) are the distinct utterances that the group's agent logged at any
turn: what it said after hearing its peers becomes a candidate for its first answer.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from envs.types import ABSTAIN, UNPARSED
from trialign_ray.letter_answers import shown_options, with_letter_of

NO_ANSWERS = (ABSTAIN, UNPARSED)


def restate(text: str, said: str, answer: str, options: tuple[str, ...] = ()) -> str:
    """`text`, which says `said`, with `answer` in its place; `answer` alone if it cannot be found.

    Whole words only: putting "Fr" for "V" must leave "Vanadium" as it is. Where the answer stands
    twice ("The capital of Monaco is Monaco."), the first is meant if the sentence after a greeting
    begins with it, else the last. An option that is named by its letter becomes the other's letter.

    Args: options: that the question shows with letters, in their order.
    """
    reworded = _reworded(text, said, answer)
    if options:
        lettered = with_letter_of(text, said, answer, options, reworded)
        if lettered is not None:
            return lettered
    return answer if reworded is None else reworded


def _reworded(text: str, said: str, answer: str) -> str | None:
    """None if the wording of `said` is not in the text."""
    places = list(re.finditer(rf"(?<!\w){re.escape(said)}(?!\w)", text))
    if not places:
        return None
    first = places[0]
    begins = first.start() == 0 or text[: first.start()].rstrip().endswith((".", "!", "?", ","))
    place = first if begins else places[-1]
    return text[: place.start()] + answer + text[place.end() :]


@dataclass(frozen=True)
class Candidate:
    """An utterance, its canonical answer, rewards (None: not known) and how often it was logged.

    A borrowed candidate has count 0: a peer's answer in the group's own words.
    """

    text: str
    answer: str
    truth: float | None
    personalization: float | None
    count: int


@dataclass(frozen=True)
class GroupView:
    """One group's part of a question: turn-0 prompt, candidates, and how it came to each answer.

    Shares are of the group's episodes, by answer: `first` at turn 0, `later` at later turns,
    `switched_to` and `switched_from` from one turn to the next.
    """

    prompt: str
    candidates: tuple[Candidate, ...]
    first: dict[str, float]
    later: dict[str, float]
    switched_to: dict[str, float]
    switched_from: dict[str, float]

    def restated(self, answer: str) -> str:
        """`answer` in the words of the group's commonest utterance that names an answer."""
        options = shown_options(self.prompt)
        for candidate in sorted(self.candidates, key=lambda c: -c.count):
            if candidate.answer not in NO_ANSWERS:
                return restate(candidate.text, candidate.answer, answer, options)
        return answer


@dataclass(frozen=True)
class JointQuestion:
    """A question, the canonical answers that anyone gave, and every group's view of it."""

    id: str
    kind: str
    gold_visible: bool
    answers: tuple[str, ...]
    views: dict[str, GroupView]

    @property
    def has_truth(self) -> bool:
        return self.kind != "subjective"

    @property
    def true_answer(self) -> str | None:
        """The answer that the visible gold confirms, if anyone gave it."""
        for view in self.views.values():
            for candidate in view.candidates:
                if candidate.truth == 1.0:
                    return candidate.answer
        return None


def join_questions(rows: Sequence[dict[str, Any]]) -> list[JointQuestion]:
    """Questions in the order of their ids, from the rows of a log (`dataset.SCHEMA`)."""
    by_question: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_question[row["question_id"]].append(row)
    return [_join(by_question[question_id]) for question_id in sorted(by_question)]


def _join(rows: list[dict[str, Any]]) -> JointQuestion:
    first = rows[0]
    spoken: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        for i, group in enumerate(row["group_ids"]):
            if row["present"][i]:
                spoken[group].append(_utterance(row, i))
    opened = {g: us for g, us in spoken.items() if any(u["turn"] == 0 for u in us)}
    views = {g: _view(utterances) for g, utterances in opened.items()}
    answers = {c.answer for v in views.values() for c in v.candidates} - set(NO_ANSWERS)
    return JointQuestion(
        id=first["question_id"],
        kind=first["kind"],
        gold_visible=first["gold_visible"],
        answers=tuple(sorted(answers)),
        views=views,
    )


def _utterance(row: dict[str, Any], i: int) -> dict[str, Any]:
    return {
        "episode": row["episode_id"],
        "turn": row["turn"],
        "prompt": row["prompt_text"][i],
        "text": row["action_text"][i],
        "answer": row["parsed_answer"][i],
        "truth": row["r_truth"][i],
        "personalization": row["r_pers"][i],
        "truncated": row["truncated"][i],
    }


def _view(utterances: list[dict[str, Any]]) -> GroupView:
    whole = [u for u in utterances if not u["truncated"] and u["text"]]
    counts = Counter(u["text"] for u in whole)
    example = {u["text"]: u for u in whole}
    candidates = tuple(
        Candidate(t, example[t]["answer"], example[t]["truth"], example[t]["personalization"], n)
        for t, n in sorted(counts.items())
    )
    opening = [u for u in utterances if u["turn"] == 0]
    later = [u for u in utterances if u["turn"] > 0]
    at = {(u["episode"], u["turn"]): u["answer"] for u in utterances}
    switches = [
        (answer, at[episode, turn + 1])
        for (episode, turn), answer in at.items()
        if at.get((episode, turn + 1), answer) != answer
    ]
    pairs = max(len(later), 1)
    return GroupView(
        prompt=opening[0]["prompt"],
        candidates=candidates,
        first=_shares([u["answer"] for u in opening], len(opening)),
        later=_shares([u["answer"] for u in later], pairs),
        switched_to=_shares([new for _, new in switches], pairs),
        switched_from=_shares([old for old, _ in switches], pairs),
    )


def _shares(answers: Sequence[str], total: int) -> dict[str, float]:
    return {answer: count / max(total, 1) for answer, count in Counter(answers).items()}


def borrow_peers(
    question: JointQuestion, personalization: Callable[[str, str], float | None]
) -> JointQuestion:
    """The question with every answer of any group as a candidate of every group.

    What a group never said is restated in its own words, with the peers' visible truth.
    Args: personalization: (group, text) -> preference score, None where not known.
    """
    truth = {c.answer: c.truth for v in question.views.values() for c in v.candidates}
    views = {}
    for group, view in question.views.items():
        said = {c.answer for c in view.candidates}
        borrowed = []
        for answer in question.answers:
            if answer not in said:
                text = view.restated(answer)
                score = personalization(group, text)
                borrowed.append(Candidate(text, answer, truth[answer], score, 0))
        views[group] = replace(view, candidates=(*view.candidates, *borrowed))
    return replace(question, views=views)


def texts_to_score(question: JointQuestion, group: str) -> list[str]:
    """What the critic needs reference log-probabilities of: candidates, then restated answers.

    Empty where the group was absent, or nobody said anything that can be used.
    """
    view = question.views.get(group)
    if view is None:
        return []
    restated = [view.restated(answer) for answer in question.answers]
    return list(dict.fromkeys([*(c.text for c in view.candidates), *restated]))
