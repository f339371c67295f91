"""Who answers an audit: a model in this process, by transformers or vLLM, or an endpoint.

Each kind gives one respondent per audience: a group may have an adapter, or a served name, of its
own; controls and users without a persona are always answered by the model that all have in common.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from envs.types import Message, Question
from trialign_ray.audit.answers import Audience, Conversation, Reply, Respondent
from trialign_ray.config import Config
from trialign_ray.engines import Decoding
from trialign_ray.errors import ConfigError
from trialign_ray.option_likelihood import Choice, Scorer, choose_options


class Respondents(Protocol):
    """One respondent per audience; `batch_size` conversations are asked at a time."""

    batch_size: int

    def of(self, audience: Audience) -> Respondent: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class ModelUnderAudit:
    """What is audited in this process. adapters: PEFT folders by group; empty: the base serves
    all."""

    folder: Path
    adapters: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineRespondent:
    """An engine of this process under one adapter or none, with the model's own chat template."""

    generate: Callable[[Sequence[str], Decoding], Sequence[Any]]
    score: Scorer
    render: Callable[[Sequence[Message]], str]
    decoding: Decoding

    def answer(self, conversations: Sequence[Conversation]) -> list[Reply]:
        said = self.generate([self.render(c) for c in conversations], self.decoding)
        return [Reply(g.text, g.truncated) for g in said]

    def choose(
        self, conversations: Sequence[Conversation], questions: Sequence[Question], by: str
    ) -> list[Choice]:
        return choose_options(self.score, [self.render(c) for c in conversations], questions, by)


class TransformersRespondents:
    """The model in this process. With adapters the base is loaded once more for each group, one at
    a time: its weights are mapped, so that this costs no second copy."""

    def __init__(self, model: ModelUnderAudit, config: Config):
        self._model, self._config = model, config
        self.batch_size = config.collect.batch_size
        self._loaded: tuple[str | None, Respondent] | None = None

    def of(self, audience: Audience) -> Respondent:
        adapter = audience.name if _adapted(self._model, audience) else None
        if self._loaded is None or self._loaded[0] != adapter:
            self._loaded = None  # the weights of the last one go before those of the next come
            self._loaded = (adapter, self._load(adapter))
        return self._loaded[1]

    def _load(self, adapter: str | None) -> Respondent:
        from trialign_ray.engines.transformers import TransformersEngine
        from trialign_ray.language_model import chat_text, load_language_model

        device = "cuda" if torch.cuda.is_available() else "cpu"
        base = load_language_model(self._model.folder, self._config.model, device)
        served = base.model
        if adapter is not None:
            from trialign_ray.adapters import load_adapter

            served = load_adapter(base, self._model.adapters[adapter])
        engine = TransformersEngine(served, base.tokenizer)
        render = partial(chat_text, base.tokenizer)
        return EngineRespondent(engine.generate, engine.score, render, decoding(self._config))

    def close(self) -> None:
        self._loaded = None


class VLLMRespondents:
    """vLLM in this process, with all adapters at once."""

    def __init__(self, model: ModelUnderAudit, config: Config):
        from trialign_ray.engines.vllm import VLLMEngine
        from trialign_ray.language_model import chat_text, load_tokenizer

        self._model, self._config = model, config
        self.batch_size = config.collect.batch_size
        rank = config.clone.lora_rank + config.clone.shared_rank if model.adapters else 0
        self._engine = VLLMEngine(model.folder, model.adapters, config.engine, config.model, rank)
        self._render = partial(chat_text, load_tokenizer(model.folder, config.model))

    def of(self, audience: Audience) -> Respondent:
        adapter = audience.name if _adapted(self._model, audience) else None
        return EngineRespondent(
            partial(self._engine.generate, adapter=adapter),
            partial(self._engine.score, adapter=adapter),
            self._render,
            decoding(self._config),
        )

    def close(self) -> None:
        self._engine.close()


class ServerRespondents:
    """An OpenAI-compatible endpoint, which renders chats by its own template.

    Args: served_as: group -> name of the model that answers it; the others are answered by `name`.
    """

    def __init__(self, engine: Any, config: Config, name: str, served_as: Mapping[str, str]):
        self._engine, self._config, self._name = engine, config, name
        self._served_as = dict(served_as)
        self.batch_size = 2 * config.engine.concurrency

    def of(self, audience: Audience) -> Respondent:
        own = self._served_as.get(audience.name) if audience.kind == "group" else None
        return ServerRespondent(self._engine, decoding(self._config), own or self._name)

    def close(self) -> None:
        """Requests are over when they are answered; there is nothing to end."""


@dataclass(frozen=True)
class ServerRespondent:
    """One model of an endpoint."""

    engine: Any
    decoding: Decoding
    model: str

    def answer(self, conversations: Sequence[Conversation]) -> list[Reply]:
        return [Reply(text) for text in self.engine.chat(conversations, self.decoding, self.model)]

    def choose(
        self, conversations: Sequence[Conversation], questions: Sequence[Question], by: str
    ) -> list[Choice]:
        raise ConfigError(
            f"evaluate.multiple_choice is {by!r}, but an endpoint tells no log-probabilities of "
            "options; set it to generate, or audit the model in this process (no --url)"
        )


def served_names(
    engine: Any, wanted: str | None, groups: Sequence[str], per_group: bool
) -> tuple[str, dict[str, str]]:
    """The common model's name at an endpoint, and each group's own where `per_group`.

    Args: engine: a ServerEngine. wanted: the common model's name; None: the only base model listed.
    Raises: ConfigError if the endpoint lists no such model, or it is not clear which one is meant.
    """
    if wanted is not None and not per_group:
        return wanted, {}  # an endpoint need not list its models; the first request will tell
    name, listed = engine.default_model, engine.models()
    missing = [n for n in (name, *(groups if per_group else ())) if n not in listed]
    if missing:
        raise ConfigError(
            f"the endpoint serves no model called {missing[0]!r}; it lists "
            f"{', '.join(listed[:12]) or 'none'}. With --model-per-group every group's model has "
            "the group's name"
        )
    return name, {g: g for g in groups} if per_group else {}


def decoding(config: Config) -> Decoding:
    """Greedy, as everywhere in evaluation."""
    return Decoding(0.0, config.collect.max_new_tokens, config.collect.batch_size)


def _adapted(model: ModelUnderAudit, audience: Audience) -> bool:
    return audience.kind == "group" and audience.name in model.adapters
