"""Random bases of a given architecture and size, saved as users' models are."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trialign_ray.language_model import word_level_tokenizer

WORDS = [f"w{i}" for i in range(1000)]


def save_random_base(folder: Path, kind: str, sizes: dict[str, Any], dtype: torch.dtype) -> int:
    """Writes a random model with a word-level tokenizer; returns its number of parameters."""
    tokenizer = word_level_tokenizer(WORDS)
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = AutoConfig.for_model(kind, pad_token_id=tokenizer.pad_token_id, **ids, **sizes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())
