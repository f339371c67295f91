"""Tiny random models of the architectures that users bring, saved as they would be."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.trialign_ray.tiny_models import byte_level_tokenizer

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,  # large: what a token sees must move its log-probability by nats
}
WINDOW = 12
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": None},
    "gemma2": {"sliding_window": 256, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 256, "query_pre_attn_scalar": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "phi3": {},
}
"""Whole attention, or a window as wide as the model's positions: all take trees."""
WINDOWED: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": WINDOW},
    "qwen2": {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    "gemma2": {"sliding_window": WINDOW, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": WINDOW, "query_pre_attn_scalar": 8},
}
"""Layers that see WINDOW tokens: trees up to there, separate rows beyond."""
WITHOUT_TREES: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "mamba": {"state_size": 4, "num_heads": 4},
}
"""ALiBi counts distances along the packed row; a recurrent state runs through all siblings."""


def random_model(kind: str, changes: dict[str, Any] | None = None, seed: int = 0) -> Any:
    """A model of random weights, in float32, frozen."""
    tokenizer = byte_level_tokenizer()
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    ids["pad_token_id"] = tokenizer.pad_token_id
    sizes = SIZES | {"vocab_size": len(tokenizer)} | ids | (changes or {})
    config = AutoConfig.for_model(kind, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    return model.requires_grad_(False).eval()


def save_random(folder: Path, kind: str, changes: dict[str, Any] | None = None) -> Path:
    """The folder of a random model with a byte-level tokenizer and ChatML."""
    random_model(kind, changes).save_pretrained(folder)
    byte_level_tokenizer().save_pretrained(folder)
    return folder
