"""What a run's actors will need of memory, from config.json alone: no weights are read.

Bytes, with P parameters of the base, A of one adapter, b bytes per weight of the base:

    base         P b, once per node on a CPU (mapped file, shared pages); per actor on a GPU
    adapter      16 A per actor: float32 weights, gradients and two AdamW moments
    activations  S (l m b + 4 l a)  of one update: S tokens of the packed trees, l layers, m values
                 that a layer keeps, a values that its adapters keep in float32. With gradient
                 checkpointing S (l h b + m b + 4 a): every layer's input, and one layer in whole
    logits       N V (b + 8): N candidate tokens, V words; the model's own, and float32 twice
    cache        2 l h_kv b  per token of prompt and answer that is generated at once

m = 8 h + 2 h_q + 4 h_kv + 4 i for hidden size h, query and key-value widths h_q and h_kv and
feed-forward width i: norms' inputs and outputs, projections, rotations, the gated product. a is
the width of all adapted modules' inputs, which PEFT casts to float32, where b < 4. It is an
estimate (kernels keep more or less); attention's scores are not in it, fused kernels keep none.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trialign_ray.config_models import ModelConfig
from trialign_ray.config_sections import CloneConfig

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ADAPTER_BYTES = 16


@dataclass(frozen=True)
class Workload:
    """Sizes that no config.json knows: tokens of a prompt and of an answer, candidates of a
    question, prompts generated at once."""

    prompt: int = 256
    answer: int = 64
    candidates: int = 8
    generated_at_once: int = 64

    def tokens(self, batch_size: int) -> int:
        """Of one update's packed trees."""
        return batch_size * (self.prompt + self.candidates * self.answer)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes; `adapter_bytes` with gradients and moments. See the module."""

    num_groups: int
    base_parameters: int
    adapter_parameters: int
    dtype: str
    base_bytes: int
    adapter_bytes: int
    activation_bytes: int
    logit_bytes: int
    cache_bytes: int
    workload: Workload

    @property
    def own_bytes(self) -> int:
        """Of one actor beside the base, at its peak: it trains or generates, not both at once."""
        return self.adapter_bytes + max(self.activation_bytes + self.logit_bytes, self.cache_bytes)

    @property
    def node_bytes(self) -> int:
        """All groups' actors on one CPU node: the base once."""
        return self.base_bytes + self.num_groups * self.own_bytes

    @property
    def gpu_bytes(self) -> int:
        """One group's actor on a GPU: the base is its own."""
        return self.base_bytes + self.own_bytes

    def lines(self) -> list[str]:
        """The plan in words, for `--dry-run`."""
        work = self.workload
        return [
            f"base {self.base_parameters / 1e6:.4g} M parameters in {self.dtype}: "
            f"{_gib(self.base_bytes)}, once per node on a CPU, per actor on a GPU",
            f"adapter {self.adapter_parameters / 1e6:.4g} M parameters in float32, with gradients "
            f"and AdamW: {_gib(self.adapter_bytes)} per group",
            f"activations of an update: {_gib(self.activation_bytes)}, logits "
            f"{_gib(self.logit_bytes)}; key-value cache of {work.generated_at_once} prompts: "
            f"{_gib(self.cache_bytes)}",
            f"in all about {_gib(self.node_bytes)} for {self.num_groups} actors on one CPU node, "
            f"or {_gib(self.gpu_bytes)} per actor on a GPU (estimated for prompts of "
            f"{work.prompt} tokens, {work.candidates} answers of {work.answer})",
        ]


def memory_plan(
    source: Path,
    clone: CloneConfig,
    model: ModelConfig,
    num_groups: int,
    workload: Workload | None = None,
) -> MemoryPlan:
    """The memory that groups' actors will need, counted on a model without weights.

    Args: source: a model's folder or its config.json. workload: what is not in the configuration.
    Raises: DataError if the architecture cannot be read; ConfigError for unknown target modules.
    """
    from trialign_ray.adapters import wrap
    from trialign_ray.language_model import meta_model

    work = workload or Workload()
    base = meta_model(source, model)
    config = base.config.get_text_config()
    base_parameters = sum(p.numel() for p in base.parameters())
    dtype = _dtype(source, model, config)
    adapted = wrap(base, clone, seed=0)
    adapter_parameters = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    width = BYTES.get(dtype, 4)
    answers = clone.batch_size * work.candidates * work.answer
    return MemoryPlan(
        num_groups=num_groups,
        base_parameters=base_parameters,
        adapter_parameters=adapter_parameters,
        dtype=dtype,
        base_bytes=base_parameters * width,
        adapter_bytes=adapter_parameters * ADAPTER_BYTES,
        activation_bytes=_activations(adapted, config, width, model, work.tokens(clone.batch_size)),
        logit_bytes=answers * config.vocab_size * (width + 8),
        cache_bytes=_cache(config, width, work),
        workload=work,
    )


def _dtype(source: Path, options: ModelConfig, config: Any) -> str:
    """Of the weights as they will be loaded: the file's own, where there is one to ask."""
    from trialign_ray.model_source import saved_dtype

    if options.dtype != "auto":
        return options.dtype
    saved = saved_dtype(source) if source.is_dir() else None
    named = getattr(config, "dtype", None)
    return saved or (str(named).removeprefix("torch.") if named is not None else "float32")


def _widths(config: Any) -> tuple[int, int, int, int]:
    """Layers, hidden size, widths of all queries and of all keys (or values)."""
    heads = getattr(config, "num_attention_heads", None) or 1
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    pairs = getattr(config, "num_key_value_heads", None) or heads
    return config.num_hidden_layers, config.hidden_size, heads * head, pairs * head


def _activations(adapted: Any, config: Any, width: int, options: ModelConfig, tokens: int) -> int:
    layers, hidden, queries, pairs = _widths(config)
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    layer = (8 * hidden + 2 * queries + 4 * pairs + 4 * inner) * width
    inputs = sum(m.in_features for m in adapted.modules() if hasattr(m, "lora_A"))
    casts = 4 * inputs if width < 4 else 0
    if options.gradient_checkpointing:
        return tokens * (layers * hidden * width + layer + casts // layers)
    return tokens * (layers * layer + casts)


def _cache(config: Any, width: int, work: Workload) -> int:
    layers, _, _, pairs = _widths(config)
    return 2 * layers * pairs * width * work.generated_at_once * (work.prompt + work.answer)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"
