"""AlignmentWorld: the dialogue among the groups' agents as an RLlib multi-agent environment.

At turn 0 each agent sees the question and its user's profile or history. From turn 1 on it also
sees what its peers answered. After `turns` turns the episode is terminated.
"""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Any

import gymnasium as gym
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from envs.errors import ConfigError
from envs.groups import Group
from envs.judge import Judge
from envs.prompts import (
    MAX_PEER_CHARS,
    opening_messages,
    plain_text,
    question_messages,
    with_peers,
)
from envs.types import Judgement, Message, PromptMode, Question

MAX_UTTERANCE_CHARS = 65_536
"""Longest utterance the world makes room for, in characters: some 16,000 tokens."""
TEMPLATE_CHARS = 4_096
"""Room for what a chat template adds to one message, a system text of its own included."""


class ChatText(gym.spaces.Text):
    """Text up to a length. Samples come from `charset`; a language model may write any character,
    so every one of them lies in the space."""

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and self.min_length <= len(x) <= self.max_length


@dataclass(frozen=True)
class WorldSpec:
    """Everything that defines the world; `questions` are those an episode may be about.

    max_text_chars: longest prompt. None: room for the longest question under the longest profile
    or history, and for every turn an utterance and what all peers say.
    """

    questions: Sequence[Question]
    groups: Sequence[Group]
    judge: Judge
    turns: int = 2
    mode: PromptMode = "explicit"
    truth_weight: float = 1.0
    personalization_weight: float = 1.0
    render: Callable[[Sequence[Message]], str] = plain_text
    max_text_chars: int | None = None

    def __post_init__(self) -> None:
        if not self.questions:
            raise ConfigError("the world has no questions; give at least one")
        if not self.groups:
            raise ConfigError("the world has no groups; give at least one")
        if self.turns < 1:
            raise ConfigError(f"collect.turns is {self.turns}; an episode has at least 1 turn")

    @cached_property
    def prompt_chars(self) -> int:
        """The longest prompt in characters: `max_text_chars`, or what follows from the texts."""
        if self.max_text_chars is not None:
            return self.max_text_chars
        openings = [
            opening_messages("", self.mode, group, variant=variant)
            for group in self.groups
            for variant in range(group.num_variants)
        ]
        longest = max(sum(TEMPLATE_CHARS + len(m["content"]) for m in o) for o in openings)
        heard = len(self.groups) * (MAX_PEER_CHARS + 16) + TEMPLATE_CHARS
        turn = MAX_UTTERANCE_CHARS + TEMPLATE_CHARS + heard
        return longest + max(len(q.text) for q in self.questions) + self.turns * turn

    @cached_property
    def observation_space(self) -> ChatText:
        """Prompts, sampled from printable characters and those of questions and groups."""
        return self._text_space(self.prompt_chars)

    @cached_property
    def action_space(self) -> ChatText:
        """Utterances of the same characters; each agent's own come back in its next prompt."""
        given = self.max_text_chars
        return self._text_space(MAX_UTTERANCE_CHARS if given is None else given // (2 * self.turns))

    def _text_space(self, max_chars: int) -> ChatText:
        texts = [q.text for q in self.questions] + [g.model_dump_json() for g in self.groups]
        texts += [c for q in self.questions for c in q.choices]
        charset = frozenset(string.printable).union(*texts)
        return ChatText(max_length=max_chars, min_length=0, charset=charset)


class AlignmentWorld(MultiAgentEnv):
    """Agents are groups; an observation is the prompt as text, an action is the utterance.

    infos hold, per group: `messages` (the chat that the observation renders), `question_id`, `turn`
    and, after a step, `judgement` of the utterance and `visible_peers`, the answers it had seen.
    The float reward leaves out what is not known (and is 0 if nothing is); infos keep it as None.
    """

    def __init__(self, spec: WorldSpec):
        super().__init__()
        self._spec = spec
        self._generator = Random(0)
        self._turn = 0
        self._names = [g.name for g in spec.groups]
        self._heard: dict[str, list[str]] = {}
        self.possible_agents = list(self._names)
        self.agents = list(self._names)
        self._agent_ids = set(self._names)
        self.observation_spaces = dict.fromkeys(self._names, spec.observation_space)
        self.action_spaces = dict.fromkeys(self._names, spec.action_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        """Starts an episode about `options["question"]` (an index), or about a random question."""
        if seed is not None:
            self._generator = Random(seed)
        index = (options or {}).get("question")
        if index is None:
            index = self._generator.randrange(len(self._spec.questions))
        self._question = self._spec.questions[index]
        self._turn = 0
        self._heard = {g: [] for g in self._names}
        self._messages = {g.name: self._opening(g) for g in self._spec.groups}
        return self._observe()

    def step(self, action_dict: dict[str, str]):
        """One joint turn: judge every utterance, let everyone hear the others."""
        judged = {g: self._spec.judge(g, self._question, text) for g, text in action_dict.items()}
        visible = {g: list(self._heard[g]) for g in judged}
        self._heard = {
            g: [judged[p].parsed_answer for p in self._names if p != g and p in judged]
            for g in self._names
        }
        self._messages = {
            g: with_peers(self._messages[g], action_dict.get(g, ""), self._heard[g])
            for g in self._names
        }
        self._turn += 1
        done = self._turn >= self._spec.turns
        observations, infos = self._observe()
        for group, judgement in judged.items():
            shown = judgement if self._question.gold_visible else replace(judgement, truth=None)
            infos[group] |= {"judgement": shown, "visible_peers": visible[group]}
        rewards = {g: self._reward(j) for g, j in judged.items()}
        terminateds = dict.fromkeys(self._names, done) | {"__all__": done}
        truncateds = dict.fromkeys(self._names, False) | {"__all__": False}
        return observations, rewards, terminateds, truncateds, infos

    def _opening(self, group: Group) -> list[Message]:
        return question_messages(self._question, self._spec.mode, group)

    def _observe(self) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        observations, infos = {}, {}
        for group, messages in self._messages.items():
            text = self._spec.render(messages)
            if len(text) > self._spec.prompt_chars:
                raise ConfigError(
                    f"the prompt of group {group} about {self._question.id} has {len(text)} "
                    f"characters, the world allows {self._spec.prompt_chars}; use fewer turns, or "
                    "let agents say less (collect.turns, collect.max_new_tokens)"
                )
            observations[group] = text
            infos[group] = {
                "messages": messages,
                "question_id": self._question.id,
                "turn": self._turn,
            }
        return observations, infos

    def _reward(self, judgement: Judgement) -> float:
        known = [
            (weight, value)
            for weight, value in (
                (self._spec.truth_weight, judgement.truth if self._question.gold_visible else None),
                (self._spec.personalization_weight, judgement.personalization),
            )
            if value is not None
        ]
        return sum(weight * value for weight, value in known)
