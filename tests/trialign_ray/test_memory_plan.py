"""The memory plan counts what a loaded model and its adapter really have."""

import json

import pytest
import torch

from tests.trialign_ray.architectures import ARCHITECTURES, save_random
from trialign_ray.adapters import add_adapter
from trialign_ray.config_models import ModelConfig
from trialign_ray.config_sections import CloneConfig
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.language_model import load_language_model
from trialign_ray.memory_plan import Workload, memory_plan
from trialign_ray.tree_batch import Tree, candidate_logprobs, pack_trees

CLONE = CloneConfig(lora_rank=4, batch_size=2)
QWEN_1_5B = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}
"""config.json of Qwen2.5-1.5B-Instruct, in its essentials."""


@pytest.mark.parametrize(("kind", "changes"), ARCHITECTURES.items())
@pytest.mark.parametrize("tied", [True, False])
def test_counts_are_those_of_the_loaded_model(kind, changes, tied, tmp_path):
    folder = save_random(tmp_path, kind, changes | {"tie_word_embeddings": tied})
    plan = memory_plan(folder, CLONE, ModelConfig(), num_groups=3)
    base = load_language_model(folder)
    assert plan.base_parameters == sum(p.numel() for p in base.model.parameters())
    assert plan.base_bytes == sum(p.numel() * p.element_size() for p in base.model.parameters())
    adapted = add_adapter(base, CLONE, seed=0)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert plan.adapter_parameters == sum(p.numel() for p in trained)
    optimizer = torch.optim.AdamW(trained)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moments = [v for s in optimizer.state.values() for k, v in s.items() if k.startswith("exp")]
    held = sum(t.numel() * t.element_size() for t in [*trained, *trained, *moments])
    assert plan.adapter_bytes == held


def test_a_config_alone_is_enough_for_a_model_that_would_not_fit(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN_1_5B))
    plan = memory_plan(file, CloneConfig(lora_rank=8), ModelConfig(), num_groups=6)
    assert plan.base_parameters == 1_543_714_304, "the published 1.54 billion"
    assert plan.base_bytes == 2 * plan.base_parameters and plan.dtype == "bfloat16"
    per_layer = 8 * (
        2 * (1536 + 1536) + 2 * (1536 + 256) + 3 * (1536 + 8960)
    )  # qo, kv, gate up down
    assert plan.adapter_parameters == 28 * per_layer
    assert plan.cache_bytes == 64 * 320 * 28 * 2 * 256 * 2
    assert plan.node_bytes == plan.base_bytes + 6 * plan.own_bytes
    text = "\n".join(plan.lines())
    assert "1544 M parameters in bfloat16: 2.88 GiB" in text and "6 actors" in text


def test_dtype_and_checkpointing_change_the_plan(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN_1_5B))
    clone = CloneConfig(lora_rank=8)
    plan = memory_plan(file, clone, ModelConfig(), 1)
    wide = memory_plan(file, clone, ModelConfig(dtype="float32"), 1)
    assert wide.base_bytes == 2 * plan.base_bytes
    lean = memory_plan(file, clone, ModelConfig(gradient_checkpointing=True), 1)
    assert lean.activation_bytes < plan.activation_bytes / 5
    assert lean.adapter_bytes == plan.adapter_bytes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "gemma3_text"])
def test_activations_are_within_a_factor_of_two_of_what_autograd_keeps(kind, dtype, tmp_path):
    sizes = {"hidden_size": 64, "intermediate_size": 160, "head_dim": 16}
    folder = save_random(tmp_path, kind, ARCHITECTURES[kind] | sizes)
    options = ModelConfig(dtype=dtype)
    work = Workload(prompt=32, answer=8, candidates=4)
    plan = memory_plan(folder, CLONE, options, 1, work)
    model = add_adapter(load_language_model(folder, options), CLONE, seed=0)
    trees = [Tree([5] * 32, [[6] * 8] * 4)] * CLONE.batch_size
    parameters = {p.data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        candidate_logprobs(model, pack_trees(trees, 0, None))
    held = sum(size for _, size in kept.values())
    estimate = plan.activation_bytes + plan.logit_bytes
    assert held / 2 < estimate < held * 2, (held, estimate)


def test_what_cannot_be_read_or_adapted_is_named(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN_1_5B | {"model_type": "nonesuch"}))
    with pytest.raises(DataError, match=r"configuration of .* cannot be loaded"):
        memory_plan(file, CLONE, ModelConfig(), 1)
    file.write_text(json.dumps(QWEN_1_5B))
    with pytest.raises(ConfigError, match=r"q_projj.*down_proj, gate_proj, k_proj"):
        memory_plan(file, CloneConfig(target_modules="q_projj,v_proj"), ModelConfig(), 1)
