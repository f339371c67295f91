"""A tree gives what separate rows give: the same log-probabilities, the same gradients."""

import pytest
import torch

from trialign_ray.adapters import add_adapter
from trialign_ray.config_sections import CloneConfig
from trialign_ray.errors import DataError
from trialign_ray.language_model import load_language_model
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.tree_batch import Tree, candidate_logprobs, pack_trees, separate_logprobs

TREES = [
    Tree([2, 30, 31, 32, 40], [[50, 51, 3], [52, 3], [50, 51, 53, 54, 3]]),
    Tree([2, 33], [[60, 3]]),
    Tree([2, 30, 31, 32, 40, 41, 42], [[70, 71, 72, 3], [70, 3]]),
]


@pytest.fixture
def lora_model():
    base = load_language_model(SHIPPED_BASE)
    model = add_adapter(base, CloneConfig(lora_rank=4), seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:  # B starts at 0; make the adapter do something
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def test_log_probabilities_equal_those_of_separate_rows(lora_model):
    with torch.no_grad():
        packed, lengths = candidate_logprobs(lora_model, pack_trees(TREES, 0, 256))
        separate = separate_logprobs(lora_model, TREES)
    for b, tree in enumerate(TREES):
        for k, tokens in enumerate(tree.candidates):
            assert float(packed[b, k]) == pytest.approx(float(separate[b][k]), abs=1e-4)
            assert int(lengths[b, k]) == len(tokens)


def test_gradients_equal_those_of_separate_rows(lora_model):
    weights = [[0.5, 0.2, 0.3], [1.0], [0.9, 0.1]]
    trained = [p for p in lora_model.parameters() if p.requires_grad]
    packed, _ = candidate_logprobs(lora_model, pack_trees(TREES, 0, 256))
    terms = [w * packed[b, k] for b, row in enumerate(weights) for k, w in enumerate(row)]
    of_tree = torch.autograd.grad(torch.stack(terms).sum(), trained)
    separate = separate_logprobs(lora_model, TREES)
    terms = [w * separate[b][k] for b, row in enumerate(weights) for k, w in enumerate(row)]
    of_rows = torch.autograd.grad(torch.stack(terms).sum(), trained)
    assert max(float(g.abs().max()) for g in of_rows) > 0.1
    for one, other in zip(of_tree, of_rows, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_tree_does_not_depend_on_its_batch(lora_model):
    with torch.no_grad():
        alone, _ = candidate_logprobs(lora_model, pack_trees(TREES[:1], 0, 256))
        together, _ = candidate_logprobs(lora_model, pack_trees(TREES, 0, 256))
    assert torch.allclose(alone[0], together[0, :3], atol=1e-5)


def test_padding_scores_zero_tokens(lora_model):
    with torch.no_grad():
        logprob, lengths = candidate_logprobs(lora_model, pack_trees(TREES, 0, 256))
    assert logprob[1, 1:].tolist() == [0.0, 0.0] and lengths[1, 1:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (Tree([], [[1]]), "empty prompt"),
        (Tree([1], []), "empty candidate"),
        (Tree([1], [[1], []]), "empty candidate"),
        (Tree([1] * 250, [[1] * 7]), "250 and answer of 7 tokens exceed the model's 256"),
    ],
)
def test_what_does_not_fit_is_an_error_and_is_not_cut(tree, message):
    with pytest.raises(DataError, match=message):
        pack_trees([tree], 0, 256)
