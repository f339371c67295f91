"""The dialogue as features for values: what a group knows when it speaks, and what it says.

States are joint (centralised training): what every group said last and how far its answer is
believed, and, of the whole log, how far the groups' first answers to this question are believed.
The latter are the same in every episode of a question, so that values compare episodes of
questions that are equally hard.

Shapes: N joint turns (rows of the log), G groups, X questions, K candidates, S state features, A
action features.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trialign_ray.candidates import NO_ANSWERS, JointQuestion
from trialign_ray.errors import DataError
from trialign_ray.values import Transitions

Beliefs = Mapping[str, Mapping[str, float]]
"""Question id -> answer -> probability that it is true (a truth head's, pessimistic or not)."""
Said = Mapping[str, str]
"""Group -> the canonical answer that it gave last in this episode."""


@dataclass(frozen=True)
class RewardWeights:
    """r = (w_T T + w_P P) / (weights of what is known)."""

    truth: float = 1.0
    personalization: float = 1.0

    def reward(self, truth: float | None, personalization: float | None) -> float:
        """NaN where nothing that has a weight is known."""
        parts = [(self.truth, truth), (self.personalization, personalization)]
        known = [(w, v) for w, v in parts if v is not None and w > 0]
        total = sum(w for w, _ in known)
        return sum(w * v for w, v in known) / total if known else math.nan


class DialogueEncoder:
    """States and actions of dialogues about `questions`, up to `num_turns` turns.

    An answer's belief is the visible gold, else what `beliefs` say; `abstain` and `unparsed` are
    never true; None in a matter of taste, or where the head does not know.
    """

    def __init__(
        self,
        questions: Sequence[JointQuestion],
        groups: Sequence[str],
        beliefs: Beliefs,
        num_turns: int,
    ):
        self.groups, self.num_turns = tuple(groups), num_turns
        self.questions = {q.id: q for q in questions}
        self._gold = {q.id: _visible_gold(q) for q in questions}
        self._beliefs = beliefs
        self._opening = {q.id: [self._first_belief(q, g) for g in groups] for q in questions}

    def truth(self, question_id: str, answer: str) -> float | None:
        """How far the answer is believed, in [0, 1]; None where nobody can say."""
        if not self.questions[question_id].has_truth:
            return None
        if answer in self._gold[question_id]:
            return self._gold[question_id][answer]
        if answer in NO_ANSWERS:
            return 0.0
        belief = self._beliefs.get(question_id, {}).get(answer, math.nan)
        return None if math.isnan(belief) else belief

    @property
    def named_S(self) -> Tensor:
        """Which state features belong to one group by name: the last two for every group."""
        num_states = self.states(next(iter(self.questions)), {}, 0).shape[-1]
        named = torch.zeros(num_states, dtype=torch.bool)
        named[-2 * len(self.groups) :] = True
        return named

    def states(self, question_id: str, said: Said, turn: int) -> Tensor:
        """What every group knows before it speaks, shape (G, S).

        Turns beyond the log's last count as its last: an episode that was cut off goes on alike.
        """
        question = self.questions[question_id]
        clock = [float(min(turn, self.num_turns - 1) == t) for t in range(self.num_turns)]
        trusted = [self.truth(question_id, z) or 0.0 for z in question.answers]
        about = [*clock, float(question.has_truth), max(trusted, default=0.0)]
        opening = self._opening[question_id]
        last = [self._believed(question_id, said.get(g)) for g in self.groups]
        about += [_mean(opening), len(set(said.values())) / len(self.groups)]
        return torch.tensor(
            [
                [*about, opening[g], *self._own(question_id, said, group, last[g]), *last, *opening]
                for g, group in enumerate(self.groups)
            ]
        )

    def _own(self, question_id: str, said: Said, group: str, belief: float) -> list[float]:
        """The state as the group itself stands in it: its last answer among its peers'."""
        own = said.get(group)
        peers = [z for g, z in said.items() if g != group]
        favourite = plurality(peers)
        return [
            float(own is not None),
            belief,
            float(own in NO_ANSWERS),
            _share(peers, own),
            _share(peers, favourite),
            self._believed(question_id, favourite),
            float(own is not None and own == favourite),
            _mean([self._believed(question_id, z) for z in peers]),
        ]

    def action(
        self,
        question_id: str,
        group: str,
        answer: str,
        personalization: float | None,
        said: Said,
    ) -> list[float]:
        """What the group says, A features."""
        truth = self.truth(question_id, answer)
        peers = [z for g, z in said.items() if g != group]
        views = self.questions[question_id].views
        expected = [v.first.get(answer, 0.0) for g, v in views.items() if g != group]
        return [
            truth or 0.0,
            float(truth is not None),
            personalization or 0.0,
            float(personalization is not None),
            float(answer == said.get(group)),
            float(answer == plurality(peers)),
            _share(peers, answer),
            float(answer in NO_ANSWERS),
            _mean(expected),
        ]

    def _believed(self, question_id: str, answer: str | None) -> float:
        return (self.truth(question_id, answer) if answer is not None else None) or 0.0

    def _first_belief(self, question: JointQuestion, group: str) -> float:
        view = question.views.get(group)
        first = view.first if view is not None else {}
        return sum(n * self._believed(question.id, z) for z, n in first.items())


def plurality(answers: Sequence[str]) -> str | None:
    """The commonest answer, the first in the alphabet of several; None if nobody gave one."""
    counts = Counter(z for z in answers if z not in NO_ANSWERS)
    return min(counts, key=lambda z: (-counts[z], z)) if counts else None


def dialogue_transitions(
    rows: Sequence[dict[str, Any]], encoder: DialogueEncoder, weights: RewardWeights
) -> Transitions:
    """One joint turn per row of the log (`dataset.SCHEMA`), in the order of episode and turn.

    A group's next state is where it speaks next. Where it does not, it is terminated if the
    episode's last row is, else (the log breaks off: truncated) the next state is the one after
    that row. The log's own `truncated` marks an utterance that was cut, not an episode, and plays
    no part here.
    Raises: DataError if the log has no rows.
    """
    episodes: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        episodes[row["episode_id"]].append(row)
    if not episodes:
        raise DataError("the log has no rows, so there are no transitions; collect again")
    parts = [
        _episode(sorted(episodes[e], key=lambda r: r["turn"]), encoder, weights)
        for e in sorted(episodes)
    ]
    state, action, reward, following, terminated = (torch.cat(p) for p in zip(*parts, strict=True))
    return Transitions(state, action, reward, following, terminated, encoder.named_S)


def _episode(
    rows: list[dict[str, Any]], encoder: DialogueEncoder, weights: RewardWeights
) -> tuple[Tensor, ...]:
    """States, actions, rewards, next states and ends of one episode, first axis its turns."""
    said: dict[str, str] = {}
    states, actions, rewards, present = [], [], [], []
    for row in rows:
        states.append(encoder.states(row["question_id"], said, row["turn"]))
        heard, said = said, dict(said)
        spoken = _utterances(row)
        scores, features = [], []
        for group in encoder.groups:
            answer, truth, personalization = spoken.get(group, ("", None, None))
            if group in spoken:
                said[group] = answer
                believed = encoder.truth(row["question_id"], answer)
                truth = believed if truth is None else truth
            scores.append(weights.reward(truth, personalization))
            features.append(
                encoder.action(row["question_id"], group, answer, personalization, heard)
            )
        rewards.append(scores)
        actions.append(features)
        present.append([g in spoken for g in encoder.groups])
    last = rows[-1]
    after = encoder.states(last["question_id"], said, last["turn"] + 1)
    following, terminated = _next_states(states, after, present, bool(last["terminated"]))
    state = torch.stack(states)
    return state, torch.tensor(actions), torch.tensor(rewards), following, terminated


def _utterances(row: dict[str, Any]) -> dict[str, tuple[str, float | None, float | None]]:
    """Answer, logged truth and personalization of every group that was present."""
    entries = zip(row["parsed_answer"], row["r_truth"], row["r_pers"], strict=True)
    named = zip(row["group_ids"], row["present"], entries, strict=True)
    return {group: entry for group, here, entry in named if here}


def _next_states(
    states: list[Tensor], after: Tensor, present: list[list[bool]], ended: bool
) -> tuple[Tensor, Tensor]:
    following = torch.stack([after] * len(states))
    terminated = torch.full(following.shape[:2], ended)
    for n in range(len(states)):
        for g in range(after.shape[0]):
            later = [m for m in range(n + 1, len(states)) if present[m][g]]
            if later:
                following[n, g] = states[later[0]][g]
                terminated[n, g] = False
    return following, terminated


def _visible_gold(question: JointQuestion) -> dict[str, float]:
    said = [c for v in question.views.values() for c in v.candidates]
    return {c.answer: c.truth for c in said if c.truth is not None}


def _share(answers: Sequence[str], answer: str | None) -> float:
    return sum(z == answer for z in answers) / max(len(answers), 1)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
