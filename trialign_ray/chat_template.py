"""Chats as the tokenizer's template renders them, and the tokens that end an utterance."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from envs.types import Message
from trialign_ray.errors import DataError

TEMPLATE_ARGUMENTS = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""What some chat templates ask for. Answers are short, so Qwen3 does not think aloud; Llama 3.2
would write today's date, and a run resumed tomorrow would have other prompts."""
END_IDS = "trialign_end_ids"
"""Attribute of a loaded tokenizer: all token ids that end an utterance, the usual one first."""


def read_template(file: Path) -> str:
    """The text of a jinja file. Raises: DataError if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"model.chat_template {file} cannot be read ({error}); expected a jinja file"
        ) from error


def chat_text(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The chat as the tokenizer's template renders it, up to where the assistant speaks.

    A template that knows no system role (Gemma, Mistral) gets it before the first question.
    Raises: DataError with the template's own words if it cannot render the chat.
    """
    chat = list(messages)
    try:
        return _rendered(tokenizer, chat)
    except TemplateError as error:
        if len(chat) > 1 and chat[0]["role"] == "system" and chat[1]["role"] == "user":
            content = f"{chat[0]['content']}\n\n{chat[1]['content']}"
            return chat_text(tokenizer, [{"role": "user", "content": content}, *chat[2:]])
        roles = ", ".join(m["role"] for m in chat)
        raise DataError(
            f"the chat template of {tokenizer.name_or_path} cannot render messages of the roles "
            f"{roles}: {error}; give another jinja file as model.chat_template"
        ) from error


def _rendered(tokenizer: Any, chat: list[Message]) -> str:
    return tokenizer.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True, **TEMPLATE_ARGUMENTS
    )


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of rendered text; special tokens are taken from the text, none are added."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def answer_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of an utterance, with the token that ends it."""
    return [*text_ids(tokenizer, text), end_ids(tokenizer)[0]]


def end_ids(tokenizer: Any) -> tuple[int, ...]:
    """Token ids that end an utterance. The first ends an assistant's message in the chat template;
    a model may use any of them (Llama 3: <|eot_id|> or <|end_of_text|>)."""
    return getattr(tokenizer, END_IDS, None) or (tokenizer.eos_token_id,)


def set_end_ids(tokenizer: Any, folder: Path) -> None:
    """Notes on the tokenizer all end tokens that it and the folder's generation_config.json and
    config.json name; first the one that the template writes behind an answer (Gemma: <end_of_turn>,
    which is not its tokenizer's).

    Raises: DataError if there is none.
    """
    found = [tokenizer.eos_token_id]
    for name in ("generation_config.json", "config.json"):
        file = folder / name
        named = json.loads(file.read_text("utf-8")).get("eos_token_id") if file.is_file() else None
        found += named if isinstance(named, list) else [named]
    ids = list(dict.fromkeys(i for i in found if i is not None))
    if not ids:
        raise DataError(
            f"neither the tokenizer of {folder} nor its generation_config.json names an end token "
            "(eos_token); without one no answer ever ends"
        )
    usual = _end_in_template(tokenizer, ids)
    setattr(tokenizer, END_IDS, tuple(sorted(ids, key=lambda i: i != usual)))


def _end_in_template(tokenizer: Any, ids: Sequence[int]) -> int | None:
    """The first of `ids` that the template puts behind an assistant's answer."""
    question: Message = {"role": "user", "content": "?"}
    prompt = chat_text(tokenizer, [question])
    try:
        answer: Message = {"role": "assistant", "content": "1"}
        whole = tokenizer.apply_chat_template([question, answer], tokenize=False)
    except TemplateError:
        return None
    behind = text_ids(tokenizer, whole[len(_common(prompt, whole)) :])
    return next((i for i in behind if i in ids), None)


def _common(one: str, other: str) -> str:
    length = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    return one[:length]
