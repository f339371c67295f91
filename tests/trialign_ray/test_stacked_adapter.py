"""Two adapters as one LoRA, and whose gradient weighs what in the common one, by hand."""

from typing import Any, cast

import pytest
import torch
from peft import PeftModel

from trialign_ray.adapters import (
    COMMON,
    OWN,
    adapter_tensors,
    add_adapter,
    add_own_adapter,
    export_adapter,
    stacked_adapter,
    unadapted,
)
from trialign_ray.config_sections import CloneConfig
from trialign_ray.errors import DataError
from trialign_ray.extraction import CandidateBatch
from trialign_ray.group_mixer import GroupMixer
from trialign_ray.language_model import load_language_model
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.targets import CentralSolution
from trialign_ray.training_rows import read_group_weights, shared_weights, write_rows

RANK, OWN_RANK = 4, 8
IDS = torch.tensor([[2, 30, 31, 32, 50, 51], [2, 40, 41, 42, 60, 61]])


def with_both(seed=0):
    """A base with both adapters, none of them 0. Scales: 16 / 4 and 16 / 8."""
    base = load_language_model(SHIPPED_BASE)
    config = CloneConfig(lora_rank=OWN_RANK, lora_alpha=16)
    model = add_adapter(base, config.model_copy(update={"lora_rank": RANK}), seed, COMMON)
    add_own_adapter(model, config, seed + 1)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return base, model


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_one_lora_computes_what_both_adapters_do(tmp_path):
    base, model = with_both()
    export_adapter(model, base, tmp_path / "a", {"group": "g"})
    plain = PeftModel.from_pretrained(load_language_model(SHIPPED_BASE).model, tmp_path / "a")
    both = logits(model)
    torch.testing.assert_close(logits(plain), both, atol=1e-5, rtol=0)
    with unadapted(model):
        assert float((logits(model) - both).abs().max()) > 0.1
    for alone in (COMMON, OWN):  # neither part alone is the whole
        cast(Any, model.base_model).set_adapter([alone])
        assert float((logits(model) - both).abs().max()) > 0.01


def test_the_stacked_lora_is_pefts_own_concatenation():
    _, model = with_both(seed=3)
    tensors, config = stacked_adapter(model, (COMMON, OWN))
    model.add_weighted_adapter([COMMON, OWN], [1.0, 1.0], "peft_cat", combination_type="cat")
    theirs = adapter_tensors(model, "peft_cat")
    assert config.r == cast(Any, model.peft_config["peft_cat"]).r == RANK + OWN_RANK
    assert config.lora_alpha / config.r == 1
    assert tensors.keys() == theirs.keys()
    for key in tensors:
        if "lora_A" in key:
            key_b = key.replace("lora_A", "lora_B")
            ours, peft = tensors[key_b] @ tensors[key], theirs[key_b] @ theirs[key]
            torch.testing.assert_close(ours, peft, atol=1e-6, rtol=1e-5)


def test_the_own_adapter_alone_trains_and_stays_alone_after_the_base_was_asked():
    _, model = with_both()
    logits_before = logits(model)
    with unadapted(model):
        logits(model)
    trains = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trains and all(f".{OWN}." in name for name in trains)
    assert torch.equal(logits(model), logits_before)
    model(input_ids=IDS).logits.sum().backward()
    with_gradient = {n for n, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == trains


def solved(credit):
    """A central solution of two groups, of which only the credits matter here."""
    return CentralSolution(torch.full((2, 1, 1), 1.0), torch.ones(2), credit, 0.0, 0.0, 1, 0.0)


def batch_of(num_rows):
    """A batch that a mixer with fixed weights has no need to look into."""
    one = torch.ones(num_rows, 1)
    return CandidateBatch(-one, one, one, -one, one, one, one, one > 0)


def test_weights_of_groups_are_the_welfares_credits_summed_over_objectives():
    """Credits (1, 3) of truth, (2, 2) of personalization: sums (3, 5), shares .375 and .625."""
    solution = solved(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
    weights = shared_weights(("a", "b"), torch.tensor([9.0, 1.0]), solution)
    assert weights == {"a": 0.375, "b": 0.625}


def test_without_a_central_problem_groups_weigh_what_they_are_given():
    assert shared_weights(("a", "b"), torch.tensor([3.0, 1.0]), None) == {"a": 0.75, "b": 0.25}


def test_credits_without_a_positive_sum_are_refused():
    solution = solved(torch.zeros(2))
    with pytest.raises(DataError, match=r"credits sum to 0\.0"):
        shared_weights(("a", "b"), torch.ones(2), solution)


def test_the_gradient_is_the_weighted_average_of_the_groups_gradients():
    """As many rows of each: sum_g w_g (mean gradient of g's rows), by a naive loop."""
    names, weights = ["a", "b", "a", "b"], {"a": 3.0, "b": 1.0}
    theta = torch.tensor([0.3, -0.7], requires_grad=True)
    x_BD = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5], [-2.0, 4.0]])
    loss_B = (x_BD @ theta).square()
    GroupMixer("pooled", ("a", "b"), weights).mix(loss_B, batch_of(4), names).backward()
    expected = torch.zeros(2)
    for group, share in (("a", 0.75), ("b", 0.25)):
        rows = [b for b, name in enumerate(names) if name == group]
        for b in rows:
            expected += share * 2 * (x_BD[b] @ theta.detach()) * x_BD[b] / len(rows)
    torch.testing.assert_close(theta.grad, expected)


def test_fixed_weights_stay_and_equal_ones_are_the_pooled_mean():
    loss = torch.tensor([1.0, 2.0, 4.0, 8.0])
    names = ["a", "b", "a", "b"]
    mixer = GroupMixer("pooled", ("a", "b"), {"a": 0.9, "b": 0.1})
    first = mixer.mix(loss, batch_of(4), names)
    assert float(first) == pytest.approx(0.9 * 2.5 + 0.1 * 5.0)
    assert float(mixer.mix(loss, batch_of(4), names)) == float(first)
    again = GroupMixer("pooled", ("a", "b"))
    again.restore(mixer.state())
    assert float(again.mix(loss, batch_of(4), names)) == float(first)
    equal = GroupMixer("pooled", ("a", "b"), {"a": 2.0, "b": 2.0}).mix(loss, batch_of(4), names)
    assert torch.equal(equal, GroupMixer("pooled", ("a", "b")).mix(loss, batch_of(4), names))


def test_rows_carry_their_groups_weights(tmp_path):
    write_rows([{"x": 1}], tmp_path / "with.parquet", "rows", {"a": 0.25, "b": 0.75})
    write_rows([{"x": 1}], tmp_path / "without.parquet", "rows")
    assert read_group_weights(tmp_path / "with.parquet") == {"a": 0.25, "b": 0.75}
    assert read_group_weights(tmp_path / "without.parquet") is None
