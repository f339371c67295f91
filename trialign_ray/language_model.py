"""Base models: loading, chat prompts as token ids, and building the tiny LM from nothing.

This file, `adapters.py` and `engines/` are the only ones that know transformers.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from envs.types import Message
from trialign_ray.errors import ConfigError, DataError

SPECIAL_TOKENS = ("<pad>", "<unk>", "<bos>", "<eos>", "<system>", "<user>", "<assistant>")
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "<{{ message['role'] }}>{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
_WORD = re.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True)
class LanguageModel:
    """A causal LM with its tokenizer. `path` and `checksum` say which weights these are."""

    model: Any
    tokenizer: Any
    path: Path
    checksum: str


def weights_checksum(folder: Path) -> str:
    """sha256 over the folder's safetensors files, in name order: the identity of a base model."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def load_language_model(folder: Path) -> LanguageModel:
    """The model of a local folder: safetensors only, mapped into memory, in the file's own dtype.

    Pages are shared by all processes of a node as long as nobody writes to them: never merge an
    adapter in place.
    Raises: DataError if the folder holds no safetensors weights or no chat template.
    """
    if not list(folder.glob("*.safetensors")):
        raise DataError(
            f"{folder} holds no .safetensors weights; give the folder of a Hugging Face model "
            "saved with save_pretrained (pickled weights are refused)"
        )
    transformers_logging.disable_progress_bar()
    tokenizer = load_tokenizer(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto",
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        attn_implementation="sdpa",
    )
    model.requires_grad_(False)
    model.eval()
    return LanguageModel(model, tokenizer, folder, weights_checksum(folder))


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, padding on the left. Raises: DataError without a chat template."""
    tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True, padding_side="left"
    )
    if not tokenizer.chat_template:
        raise DataError(f"the tokenizer of {folder} has no chat template; add chat_template.jinja")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def chat_text(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The chat as the tokenizer's template renders it, up to where the assistant speaks."""
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of rendered text; special tokens are taken from the text, none are added."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def answer_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of an utterance, with the end-of-sequence token that stops it."""
    return [*text_ids(tokenizer, text), tokenizer.eos_token_id]


def unknown_words(tokenizer: Any, texts: Iterable[str]) -> list[str]:
    """Words that the tokenizer can only read as unknown, in order of appearance."""
    if tokenizer.unk_token_id is None:
        return []
    words = dict.fromkeys(word for text in texts for word in _WORD.findall(text))
    return [w for w in words if tokenizer.unk_token_id in answer_ids(tokenizer, w)]


def word_level_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of the words and punctuation of `texts`, with a chat template."""
    words = sorted({word for text in texts for word in _WORD.findall(text)})
    vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens=["<system>", "<user>", "<assistant>"],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )


def new_llama(tokenizer: Any, hidden_size: int, num_layers: int, seed: int) -> LlamaForCausalLM:
    """A Llama of random weights, small enough to train on a laptop, fp32."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def save_language_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Saves weights (safetensors), configuration and tokenizer in Hugging Face's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def require_fits(checksum: str, base: LanguageModel, what: str) -> None:
    """Raises: ConfigError if `what` was made for other base weights than `base`."""
    if checksum != base.checksum:
        raise ConfigError(
            f"{what} was trained on a base model with checksum {checksum[:12]}, but {base.path} "
            f"has {base.checksum[:12]}; use the base it was trained on"
        )
