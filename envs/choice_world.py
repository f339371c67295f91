"""CandidateChoiceWorld: the world as a choice among logged candidates, for RLlib's own algorithms.

An episode is one question and one joint step: every group that is present picks one of its
candidates. A group sees numbers about its own candidates alone.

Shapes: G groups, X questions, K candidates (padded), F features of a candidate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from envs.errors import ConfigError, DataError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ChoiceProblem:
    """What there is to choose from, and what a choice pays.

    features_GXKF are finite; what stands beside the mask is ignored. reward_GXK is NaN where not
    known. mask_GXK is True where there is a candidate; a group without any is absent. Groups are
    names, or numbers.
    """

    groups: tuple[str, ...] | tuple[int, ...]
    features_GXKF: Floats
    reward_GXK: Floats
    mask_GXK: NDArray[np.bool_]

    def __post_init__(self) -> None:
        shape = (len(self.groups), *self.mask_GXK.shape[1:])
        shapes = (self.mask_GXK.shape, self.reward_GXK.shape, self.features_GXKF.shape[:-1])
        if any(s != shape for s in shapes) or self.features_GXKF.ndim != 4:
            raise DataError(
                f"mask, reward and features are of shapes {self.mask_GXK.shape}, "
                f"{self.reward_GXK.shape} and {self.features_GXKF.shape} for {len(self.groups)} "
                "groups; expected (G, X, K), (G, X, K) and (G, X, K, F)"
            )
        if not self.mask_GXK.any():
            raise ConfigError("no group has a candidate on any question; collect a log first")
        if not np.isfinite(self.features_GXKF[self.mask_GXK]).all():
            raise DataError(
                "a feature of a candidate is NaN or infinite; give 0 and a flag of its own for "
                "what is not known"
            )
        if np.isinf(self.reward_GXK[self.mask_GXK]).any():
            raise DataError("a reward is infinite; expected a number, or NaN where not known")

    @cached_property
    def observation_GXD(self) -> Floats:
        """What a group sees of a question: per candidate its features, then 1 (0 if padding)."""
        features = np.where(self.mask_GXK[..., None], self.features_GXKF, 0.0)
        seen = np.concatenate([features, self.mask_GXK[..., None]], -1, dtype=np.float32)
        return seen.reshape(*self.mask_GXK.shape[:2], -1)

    @cached_property
    def payoff_GXK(self) -> Floats:
        """What a choice pays. Not known pays 0: it is left out, as `AlignmentWorld` does.

        Padding pays the lowest reward of the problem, or 0 if that is lower: choosing what does not
        exist is never better than the worst candidate.
        """
        known = np.where(self.mask_GXK, np.nan_to_num(self.reward_GXK, nan=0.0), 0.0)
        return np.where(self.mask_GXK, known, known.min()).astype(np.float32)

    @cached_property
    def present_GX(self) -> NDArray[np.bool_]:
        """Which groups have a candidate on which question."""
        return np.any(self.mask_GXK, axis=-1)

    @cached_property
    def questions(self) -> NDArray[np.intp]:
        """The questions on which somebody can choose; an episode is about one of them."""
        return np.flatnonzero(self.present_GX.any(0))


class CandidateChoiceWorld(MultiAgentEnv):
    """Agents are groups; an action is the index of a candidate, an observation a flat Box.

    infos hold `question`, its index. Groups that are absent on a question are not in any dict.
    """

    def __init__(self, problem: ChoiceProblem | Mapping[str, ChoiceProblem]):
        """Args: problem: the problem, or RLlib's `env_config` that holds it under "problem"."""
        super().__init__()
        problem = problem if isinstance(problem, ChoiceProblem) else problem["problem"]
        self._problem = problem
        self._index: dict[Any, int] = {name: g for g, name in enumerate(problem.groups)}
        self._generator = np.random.default_rng(0)
        self._question = int(problem.questions[0])
        seen = problem.observation_GXD
        box = gym.spaces.Box(float(seen.min()), float(max(seen.max(), 1)), seen.shape[2:])
        self.possible_agents = list(problem.groups)
        self.agents = list(problem.groups)
        self._agent_ids = set(problem.groups)
        self.observation_spaces = dict.fromkeys(problem.groups, box)
        choices = gym.spaces.Discrete(problem.mask_GXK.shape[-1])
        self.action_spaces = dict.fromkeys(problem.groups, choices)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[Any, Floats], dict[Any, dict[str, Any]]]:
        """Starts an episode about `options["question"]` (an index), or about a random question.

        Raises: DataError if no group has a candidate on that question.
        """
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        question = (options or {}).get("question")
        if question is None:
            question = self._generator.choice(self._problem.questions)
        self._question = int(question)
        questions = self._problem.questions
        if self._question not in questions:
            raise DataError(
                f"no group has a candidate on question {self._question}; expected one of the "
                f"{len(questions)} of ChoiceProblem.questions"
            )
        present_G = self._problem.present_GX[:, self._question]
        self.agents = [name for name, g in self._index.items() if present_G[g]]
        return self._observe()

    def step(self, action_dict: dict[Any, int]):
        """The joint choice; the episode is over."""
        payoff_GK = self._problem.payoff_GXK[:, self._question]
        rewards = {n: float(payoff_GK[self._index[n], a]) for n, a in action_dict.items()}
        observations, infos = self._observe()
        terminateds = dict.fromkeys(self.agents, True) | {"__all__": True}
        truncateds = dict.fromkeys(self.agents, False) | {"__all__": False}
        return observations, rewards, terminateds, truncateds, infos

    def _observe(self) -> tuple[dict[Any, Floats], dict[Any, dict[str, Any]]]:
        seen_GD = self._problem.observation_GXD[:, self._question]
        observations = {n: seen_GD[self._index[n]].copy() for n in self.agents}
        return observations, {n: {"question": self._question} for n in self.agents}
