"""Every architecture scores, trains and speaks alike; what takes no tree gets separate rows."""

import logging

import pytest
import torch

from tests.trialign_ray.architectures import (
    ARCHITECTURES,
    WINDOW,
    WINDOWED,
    WITHOUT_TREES,
    random_model,
    save_random,
)
from trialign_ray import tree_batch
from trialign_ray.adapters import wrap
from trialign_ray.config_models import ModelConfig
from trialign_ray.config_sections import CloneConfig
from trialign_ray.engines import Decoding
from trialign_ray.engines.transformers import TransformersEngine
from trialign_ray.language_model import LanguageModel, load_language_model
from trialign_ray.tree_batch import (
    Tree,
    candidate_logprobs,
    model_limits,
    pack_trees,
    separate_logprobs,
)

TREES = [
    Tree([2, 30, 31, 32, 40], [[50, 51, 3], [52, 3], [50, 51, 53, 54, 3]]),
    Tree([2, 33], [[60, 3]]),
    Tree([2, 30, 31, 32, 40, 41, 42], [[70, 71, 72, 3], [70, 3]]),
]
LONG = [Tree([2, *range(30, 45)], [[50, 51, 3], [52, 3]]), TREES[1]]
"""Longer than WINDOW, so that windowed layers do not see the whole prompt."""
EVERY = [
    *[pytest.param(k, c, id=k) for k, c in ARCHITECTURES.items()],
    *[pytest.param(k, c, id=f"{k} windowed") for k, c in WINDOWED.items()],
    *[pytest.param(k, c, id=k) for k, c in WITHOUT_TREES.items()],
]


def adapted(kind, changes):
    """A random model with a LoRA that does something: B does not stay 0."""
    modules = "in_proj" if kind == "mamba" else "all-linear"  # PEFT refuses Mamba's out_proj
    config = CloneConfig(lora_rank=2, target_modules=modules)
    model = wrap(random_model(kind, changes), config, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def assert_as_separate(model, trees):
    with torch.no_grad():
        found, lengths = candidate_logprobs(model, pack_trees(trees, 0, 256))
        rows = separate_logprobs(model, trees)
    for b, tree in enumerate(trees):
        for k, tokens in enumerate(tree.candidates):
            assert float(found[b, k]) == pytest.approx(float(rows[b][k]), abs=1e-4)
            assert int(lengths[b, k]) == len(tokens)
        assert found[b, len(tree.candidates) :].abs().sum() == 0


def gradients(model, logprobs):
    """Of a weighted sum of all log-probabilities, so that no two candidates count alike."""
    terms = [(1 + b + 3 * k) * x for b, row in enumerate(logprobs) for k, x in enumerate(row)]
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad(torch.stack(terms).sum(), trained)


@pytest.fixture
def forwards(monkeypatch):
    """Which way candidates were computed, in order."""
    taken = []
    for name in ("tree_logprobs", "row_logprobs"):
        original = getattr(tree_batch, name)

        def counted(*args, _name=name, _original=original):
            taken.append(_name)
            return _original(*args)

        monkeypatch.setattr(tree_batch, name, counted)
    return taken


@pytest.mark.parametrize(("kind", "changes"), EVERY)
@pytest.mark.parametrize("trees", [TREES, LONG], ids=["short", "long"])
def test_candidates_score_as_separate_rows_in_every_architecture(kind, changes, trees):
    assert_as_separate(adapted(kind, changes), trees)


@pytest.mark.parametrize(("kind", "changes"), EVERY)
def test_gradients_are_those_of_separate_rows_in_every_architecture(kind, changes):
    model = adapted(kind, changes)
    found, _ = candidate_logprobs(model, pack_trees(LONG, 0, 256))
    sums = [[found[b, k] for k in range(len(t.candidates))] for b, t in enumerate(LONG)]
    of_batch, of_rows = gradients(model, sums), gradients(model, separate_logprobs(model, LONG))
    largest = max(float(g.abs().max()) for g in of_rows)
    assert largest > 0.1
    for one, other in zip(of_batch, of_rows, strict=True):
        assert torch.allclose(one, other, atol=1e-4 * max(1.0, largest))


@pytest.mark.parametrize(("kind", "changes"), ARCHITECTURES.items())
def test_whole_attention_takes_trees_whatever_the_length(kind, changes, forwards):
    model = random_model(kind, changes)
    assert not model_limits(model).no_trees and model_limits(model).window is None
    forwards.clear()
    candidate_logprobs(model, pack_trees(LONG, 0, 256))
    assert forwards == ["tree_logprobs"]


@pytest.mark.parametrize(("kind", "changes"), WINDOWED.items())
def test_a_window_takes_trees_up_to_its_width_and_rows_beyond(kind, changes, forwards, caplog):
    model = random_model(kind, changes)
    with caplog.at_level(logging.WARNING):
        assert model_limits(model).window == WINDOW
        for trees in (TREES, LONG):
            forwards.clear()
            candidate_logprobs(model, pack_trees(trees, 0, 256))
            assert forwards == ["tree_logprobs" if trees is TREES else "row_logprobs"]
    assert [r.getMessage() for r in caplog.records if f"more than {WINDOW}" in r.getMessage()]
    packed, _ = tree_batch.tree_logprobs(model, pack_trees(LONG, 0, 256))
    right, _ = candidate_logprobs(model, pack_trees(LONG, 0, 256))
    assert float((packed - right).abs().max()) > 1e-2, "a tree would have been wrong"


@pytest.mark.parametrize(("kind", "changes"), WITHOUT_TREES.items())
def test_a_model_that_takes_no_tree_says_so_once_and_is_right(kind, changes, forwards, caplog):
    model = random_model(kind, changes)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            candidate_logprobs(model, pack_trees(TREES, 0, 256))
    assert forwards[-3:] == ["row_logprobs"] * 3 and model_limits(model).no_trees
    assert len([r for r in caplog.records if "separate rows" in r.getMessage()]) == 1


def test_quantised_models_are_not_tried_with_trees(forwards):
    model = random_model("llama")
    model.config.quantization_config = {"quant_method": "int4"}
    assert "quantised" in model_limits(model).no_trees and forwards == []


def test_the_trial_finds_a_model_that_ignores_the_mask():
    model = random_model("llama")
    forward = model.forward

    def blind(attention_mask=None, position_ids=None, **inputs):
        return forward(**inputs)

    model.forward = blind
    assert "sees its siblings" in model_limits(model).no_trees


def test_the_trial_finds_a_model_that_ignores_the_positions():
    model = random_model("llama")
    forward = model.forward

    def counting(position_ids=None, logits_to_keep=0, **inputs):
        return forward(logits_to_keep=logits_to_keep, **inputs)

    model.forward = counting
    assert "off by" in model_limits(model).no_trees


def test_the_limits_survive_the_adapter_and_leave_training_mode_as_it_was():
    model = random_model("qwen2").train()
    limits = model_limits(model, max_length=100)
    assert model.training and limits.max_length == 100
    assert model_limits(wrap(model, CloneConfig(lora_rank=2), seed=0)) is limits


@pytest.mark.parametrize("kind", ["qwen2", "gemma3_text", "gpt2"])
def test_a_saved_model_generates_as_it_scores(kind, tmp_path):
    base = load_language_model(save_random(tmp_path, kind, ARCHITECTURES[kind]))
    engine = TransformersEngine(base.model, base.tokenizer)
    prompts = ["<|im_start|>user\nHi<|im_end|>\n", "x"]
    said = engine.generate(prompts, Decoding(1.0, 8, 2, seed=3))
    scored = engine.score(prompts, [[u.token_ids] for u in said])
    for utterance, (score,) in zip(said, scored, strict=True):
        assert score.logprob == pytest.approx(utterance.logprob, abs=1e-3)
    alone = engine.generate(prompts[1:], Decoding(0.0, 8, 1))
    assert engine.generate(prompts, Decoding(0.0, 8, 2))[1].token_ids == alone[0].token_ids


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_takes_trees_and_its_adapter_is_float32(dtype, tmp_path):
    folder = save_random(tmp_path, "qwen2", {"initializer_range": 0.1})
    base = load_language_model(folder, ModelConfig(dtype=dtype))
    assert not model_limits(base.model).no_trees
    model = wrap(base.model, CloneConfig(lora_rank=2), seed=0)
    kinds = {p.dtype for p in model.parameters() if p.requires_grad}
    assert kinds == {torch.float32}
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
    assert frozen == {getattr(torch, dtype)}
    assert isinstance(base, LanguageModel)
    found, _ = candidate_logprobs(model, pack_trees(TREES, 0, 256))
    found.sum().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads and all(torch.isfinite(g).all() and g.dtype == torch.float32 for g in grads)
    rows = separate_logprobs(model, TREES)
    for b, row in enumerate(rows):
        for k, value in enumerate(row):
            assert float(found[b, k].detach()) == pytest.approx(float(value.detach()), abs=0.25)
