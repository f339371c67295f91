"""Base models: loading, chat prompts as token ids, and building the tiny LM from nothing.

This file, `adapters.py` and `engines/` are the only ones that know transformers.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from trialign_ray.chat_template import answer_ids, chat_text, read_template, set_end_ids
from trialign_ray.chat_template import end_ids as end_ids
from trialign_ray.chat_template import text_ids as text_ids
from trialign_ray.config_models import ModelConfig
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.model_source import require_model_files, saved_dtype
from trialign_ray.tree_batch import model_limits

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


def load_language_model(
    folder: Path, options: ModelConfig | None = None, device: str = "cpu"
) -> LanguageModel:
    """The model of a local folder: safetensors only, mapped into memory, in the file's own dtype.

    Pages are shared by all processes of a node as long as nobody writes to them: never merge an
    adapter in place. Another `options.dtype` than the file's, or another device, costs a copy.
    Raises: DataError if weights, tokenizer or chat template are missing or cannot be read.
    """
    options = options or ModelConfig()
    require_model_files(folder, options)
    transformers_logging.disable_progress_bar()
    tokenizer = load_tokenizer(folder, options)
    dtype = saved_dtype(folder) if options.dtype == "auto" else options.dtype
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            output_loading_info=True,
            dtype=dtype or "auto",
            use_safetensors=True,
            trust_remote_code=options.trust_remote_code,
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise DataError(_unreadable("model", folder, error)) from error
    model, loading = loaded
    _require_all_weights(folder, loading)
    model.requires_grad_(False)
    model.eval()
    if device != "cpu":
        model.to(device)
    _forget_sampling_defaults(model)
    if options.gradient_checkpointing:
        _recompute_activations(model)
    model_limits(model, options.max_length)
    return LanguageModel(model, tokenizer, folder, weights_checksum(folder))


def _require_all_weights(folder: Path, loading: dict[str, Any]) -> None:
    """transformers fills what the files lack with random numbers. Raises: DataError instead."""
    lacking = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]]))
    if lacking:
        raise DataError(
            f"the weights of {folder} lack, or have in another shape, {len(lacking)} of the "
            f"tensors that its config.json asks for, first {lacking[0]}; is it a causal LM?"
        )


def _unreadable(what: str, folder: Path, error: Exception) -> str:
    said = str(error).strip().splitlines() or [type(error).__name__]
    if "trust_remote_code" in str(error):
        return (
            f"the {what} of {folder} comes with Python code of its own; read it, then allow it "
            "with model.trust_remote_code=true"
        )
    return f"the {what} of {folder} cannot be loaded: {said[0][:300]}"


def _forget_sampling_defaults(model: Any) -> None:
    """A model's makers may recommend a repetition penalty or top-p; the behaviour policy samples
    from the model itself, so that logged log-probabilities are those of its answers."""
    own = model.generation_config
    model.generation_config = type(own)(
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )


def _recompute_activations(model: Any) -> None:
    """Not re-entrant: then gradients reach the adapters although the embeddings are frozen."""
    if not model.supports_gradient_checkpointing:
        raise ConfigError(
            f"{type(model).__name__} cannot recompute its activations; set "
            "model.gradient_checkpointing=false"
        )
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def meta_model(source: Path, options: ModelConfig) -> Any:
    """The architecture of a config.json, or of the folder that holds it, without any weights.

    Raises: DataError if it cannot be read.
    """
    trust = options.trust_remote_code
    try:
        folder = source.parent if source.is_file() else source
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise DataError(_unreadable("configuration", source, error)) from error
    return model.requires_grad_(False)


def load_tokenizer(folder: Path, options: ModelConfig | None = None) -> Any:
    """The folder's tokenizer, padding on the left. Raises: DataError without a chat template."""
    options = options or ModelConfig()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder,
            trust_remote_code=options.trust_remote_code,
            local_files_only=True,
            padding_side="left",
        )
    except (OSError, ValueError, KeyError, ImportError, TypeError) as error:
        raise DataError(_unreadable("tokenizer", folder, error)) from error
    if options.chat_template is not None:
        tokenizer.chat_template = read_template(Path(options.chat_template))
    if not tokenizer.chat_template:
        raise DataError(
            f"the tokenizer of {folder} has no chat template; add chat_template.jinja, or name a "
            "jinja file as model.chat_template"
        )
    chat_text(tokenizer, [{"role": "user", "content": "?"}])
    set_end_ids(tokenizer, folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(end_ids(tokenizer)[0])
    return tokenizer


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
