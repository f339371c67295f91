"""Engines generate and score; the rest of the library does not know which one it talks to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Utterance = str | Sequence[int]
"""What is scored: a text, which the end token is added to, or the token ids that were said. Text
does not always become the same tokens again: a sampled "!" and "." are read as one "!."."""


@dataclass(frozen=True)
class Decoding:
    """temperature 0 is greedy. A seed makes sampling repeatable."""

    temperature: float
    max_new_tokens: int
    batch_size: int
    seed: int = 0


@dataclass(frozen=True)
class Generation:
    """An utterance: text, token ids with the end token, the sum of their log-probabilities at
    temperature 1, and whether the length limit cut it."""

    text: str
    token_ids: tuple[int, ...]
    logprob: float
    truncated: bool


@dataclass(frozen=True)
class CandidateScore:
    """Sum of token log-probabilities of one candidate, and its number of tokens."""

    logprob: float
    num_tokens: int


class Engine(Protocol):
    """One model under one adapter, or none. Prompts are text, as the chat template renders it."""

    def generate(self, prompts: Sequence[str], decoding: Decoding) -> list[Generation]: ...

    def score(
        self, prompts: Sequence[str], candidates: Sequence[Sequence[Utterance]]
    ) -> list[list[CandidateScore]]: ...
