"""What vLLM is told: our configuration in its words. Knows no vLLM, so that a plan can be made
where it is not installed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from trialign_ray.config_models import EngineConfig, ModelConfig
from trialign_ray.engines import Decoding
from trialign_ray.errors import ConfigError
from trialign_ray.language_model import end_ids, meta_model

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The largest ranks that vLLM can be built for."""

MAX_TEMPERATURE = 2.0
"""vLLM's own limit."""


def engine_arguments(options: EngineConfig, model: ModelConfig) -> dict[str, Any]:
    """Arguments of vLLM's engine. On a CPU without a dtype asked for: float32, because most CPUs
    have no bfloat16 units; and prompts are not split, because vLLM 0.32 fails there on the seeded
    request whose prompt it has split."""
    on_cpu = options.gpus == 0
    arguments: dict[str, Any] = {
        "dtype": "float32" if on_cpu and model.dtype == "auto" else model.dtype,
        "max_model_len": model.max_length,
        "trust_remote_code": model.trust_remote_code,
        "logprobs_mode": "raw_logprobs",
        "generation_config": "vllm",
        "enforce_eager": on_cpu,
        "disable_log_stats": True,
        "seed": 0,
    }
    if on_cpu:
        cache = int(options.cache_gib * 2**30)
        return arguments | {"kv_cache_memory_bytes": cache, "enable_chunked_prefill": False}
    return arguments | {"gpu_memory_utilization": options.memory_fraction}


def lora_arguments(num_adapters: int, max_rank: int, modules: Sequence[str]) -> dict[str, Any]:
    """Arguments of vLLM's engine for adapters of these modules. Without the output layer among
    them, prompts can be scored under an adapter.

    Raises: ConfigError if the rank is more than vLLM takes.
    """
    fitting = [rank for rank in LORA_RANKS if rank >= max_rank]
    if not fitting:
        raise ConfigError(
            f"an adapter of rank {max_rank} is more than vLLM takes ({LORA_RANKS[-1]}); lower "
            "clone.lora_rank or clone.shared_rank, or set engine.kind=transformers"
        )
    return {
        "enable_lora": True,
        "max_loras": num_adapters,
        "max_lora_rank": fitting[0],
        "lora_target_modules": list(modules),
    }


def sampling_arguments(decoding: Decoding, seed: int, tokenizer: Any) -> dict[str, Any]:
    """vLLM's sampling parameters: log-probabilities of what was said, ended by any end token.

    Raises: ConfigError for a temperature that vLLM does not take.
    """
    if decoding.temperature > MAX_TEMPERATURE:
        raise ConfigError(
            f"temperature {decoding.temperature:g} is more than vLLM samples at "
            f"({MAX_TEMPERATURE:g}); lower collect.temperature, or set engine.kind=transformers"
        )
    return {
        "temperature": decoding.temperature,
        "max_tokens": decoding.max_new_tokens,
        "seed": seed,
        "logprobs": 0,
        "stop_token_ids": list(end_ids(tokenizer)),
        "detokenize": False,
    }


def linear_modules(folder: Path, model: ModelConfig) -> tuple[str, ...]:
    """Names of the model's linear layers but the output layer: what PEFT calls all-linear. No
    weights are read."""
    bare = meta_model(folder, model)
    head = bare.get_output_embeddings()
    names = {
        name.rpartition(".")[-1]
        for name, module in bare.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    return tuple(sorted(names))
