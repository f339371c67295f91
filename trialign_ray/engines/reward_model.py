"""A reward model: a transformer with a sequence-classification head of one label, in batches.

Axes: B texts of a batch, T tokens.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from envs.preferences import ToScore
from envs.types import Message, Question
from trialign_ray.chat_template import TEMPLATE_ARGUMENTS, read_template, text_ids
from trialign_ray.errors import ConfigError, DataError


class RewardModel:
    """Rewards of whole chats. `model` has one label; `tokenizer` has a chat template."""

    def __init__(self, model: Any, tokenizer: Any, name: str, batch_size: int):
        self._model, self._tokenizer = model, tokenizer
        self._name, self._batch_size = name, batch_size
        self._config = model.config.get_text_config()
        self._limit = getattr(self._config, "max_position_embeddings", None)

    @torch.inference_mode()
    def rewards(self, chats: Sequence[Sequence[Message]]) -> list[float]:
        """One reward per chat, in their order; batches hold chats of like length.

        Raises: DataError if a chat is longer than the model takes, or a reward is not a number.
        """
        ids = [text_ids(self._tokenizer, self.render(chat)) for chat in chats]
        for row, chat in zip(ids, chats, strict=True):
            self._require_fits(len(row), chat)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found: dict[int, float] = {}
        for start in range(0, len(order), self._batch_size):
            chosen = order[start : start + self._batch_size]
            found.update(zip(chosen, self._batch([ids[i] for i in chosen]), strict=True))
        for i, reward in found.items():
            if not math.isfinite(reward):
                raise DataError(
                    f"the reward model {self._name} gives {reward} for "
                    f"{chats[i][-1]['content'][:80]!r}; expected a finite number, see to its "
                    "weights and dtype"
                )
        return [found[i] for i in range(len(ids))]

    def render(self, chat: Sequence[Message]) -> str:
        """The chat with its answer, as the model's template writes it.

        A template that knows no system role gets it before the first question.
        """
        try:
            return self._tokenizer.apply_chat_template(
                list(chat), tokenize=False, add_generation_prompt=False, **TEMPLATE_ARGUMENTS
            )
        except TemplateError as error:
            if len(chat) > 2 and chat[0]["role"] == "system" and chat[1]["role"] == "user":
                joined = f"{chat[0]['content']}\n\n{chat[1]['content']}"
                return self.render([{"role": "user", "content": joined}, *chat[2:]])
            raise DataError(
                f"the chat template of the reward model {self._name} cannot render a chat: {error}"
            ) from error

    def _batch(self, rows: list[list[int]]) -> list[float]:
        """Padding stands on the right, where causal attention never looks."""
        length = max(map(len, rows))
        pad = self._pad_id(rows)
        ids_BT = torch.tensor([row + [pad] * (length - len(row)) for row in rows])
        mask_BT = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        device = self._model.device
        own_pad = self._config.pad_token_id
        self._config.pad_token_id = pad  # the head finds the last token that is not this one
        try:
            out = self._model(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device))
        finally:
            self._config.pad_token_id = own_pad
        return out.logits[:, 0].float().tolist()

    def _pad_id(self, rows: list[list[int]]) -> int:
        """The model's padding token, or where it has none a token that the batch does not use: were
        it one that ends a chat, the head would take the token before it."""
        if self._config.pad_token_id is not None:
            return self._config.pad_token_id
        used = set().union(*rows)
        return next(i for i in range(len(used) + 1) if i not in used)

    def _require_fits(self, length: int, chat: Sequence[Message]) -> None:
        if self._limit is not None and length > self._limit:
            raise DataError(
                f"prompt and answer of {length} tokens ({chat[-1]['content'][:60]!r}) exceed the "
                f"{self._limit} positions of the reward model {self._name}; shorten them, or use a "
                "model with a longer context"
            )


def load_reward_model(
    folder: Path, batch_size: int = 16, device: str = "cpu", chat_template: str | None = None
) -> RewardModel:
    """The reward model of a local folder, safetensors only, in the dtype of its config.

    Raises: ConfigError if it has not exactly one label; DataError if it cannot be read.
    """
    transformers_logging.disable_progress_bar()
    trusted = {"trust_remote_code": False, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(folder, **trusted)
        _require_one_label(config, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, **trusted)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            dtype="auto",
            use_safetensors=True,
            output_loading_info=True,
            **trusted,
        )
        model.to(device)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, AssertionError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"the reward model {folder} cannot be loaded: {said[:300]}") from error
    if info["missing_keys"]:
        raise DataError(
            f"the reward model {folder} lacks weights for {', '.join(sorted(info['missing_keys']))}"
            "; a base model without a trained reward head cannot score"
        )
    if chat_template is not None:
        tokenizer.chat_template = read_template(Path(chat_template))
    model.requires_grad_(False).eval()
    return RewardModel(model, tokenizer, str(folder), batch_size)


def _require_one_label(config: Any, folder: Path) -> None:
    if config.num_labels != 1:
        raise ConfigError(
            f"{folder} has {config.num_labels} labels; expected a reward model with num_labels 1 "
            "(a classifier of several classes has no single reward)"
        )


class RewardModelScorer:
    """Preference as sigmoid(reward / scale) of the prompt with the answer.

    Args: context_of: what the group's model saw when it was asked the question.
    """

    def __init__(
        self,
        model: RewardModel,
        scale: float,
        context_of: Callable[[str, Question], Sequence[Message]],
    ):
        self._model, self._scale, self._context_of = model, scale, context_of
        self._known: dict[tuple[str, ...], float] = {}

    def score(self, group: str, question: Question, text: str, answer: str) -> float | None:
        """In (0, 1); never None."""
        self.prepare([(group, question, text, answer)])
        return self._known[_key(self._chat(group, question, text))]

    def prepare(self, items: Sequence[ToScore]) -> None:
        """Scores in batches what has no score yet."""
        chats = {}
        for group, question, text, _ in items:
            chat = self._chat(group, question, text)
            if (key := _key(chat)) not in self._known:
                chats[key] = chat
        rewards = self._model.rewards(list(chats.values()))
        for key, reward in zip(chats, rewards, strict=True):
            self._known[key] = 0.5 * (1 + math.tanh(0.5 * reward / self._scale))

    def _chat(self, group: str, question: Question, text: str) -> list[Message]:
        return [*self._context_of(group, question), {"role": "assistant", "content": text}]


def _key(chat: Sequence[Message]) -> tuple[str, ...]:
    return tuple(part for m in chat for part in (m["role"], m["content"]))
