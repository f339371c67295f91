"""Cloning: the loss, the cursor that never ends, resume, and the base that stays as it is."""

import math

import pytest
import torch

from trialign_ray.adapters import adapter_tensors, add_adapter, export_adapter, load_adapter
from trialign_ray.clone import CloneRow, CloneTrainer, clone_loss
from trialign_ray.config import CloneConfig
from trialign_ray.errors import ConfigError, DataError, TrialignError
from trialign_ray.language_model import load_language_model, new_llama, save_language_model
from trialign_ray.tiny_lm import SHIPPED_BASE
from trialign_ray.tree_batch import Tree, candidate_logprobs, pack_trees

CONFIG = CloneConfig(steps=8, batch_size=2, lora_rank=4, learning_rate=1e-2)
ROWS = [
    CloneRow(Tree([2, 30 + i], [[50 + i, 3], [60 + i, 61, 3]]), (0.8, 0.2), (-5.0, -9.0))
    for i in range(3)
]


def trainer(config=CONFIG, rows=ROWS):
    base = load_language_model(SHIPPED_BASE)
    model = add_adapter(base, config, seed=1)
    return base, model, CloneTrainer(model, base.tokenizer.pad_token_id, rows, config, seed=2)


def fingerprint(model, adapter):
    named = [(n, p) for n, p in model.named_parameters() if ("lora_" in n) == adapter]
    return {n: p.detach().clone() for n, p in named}


def equal(one, other):
    return all(torch.equal(one[n], other[n]) for n in one)


def test_the_loss_is_the_weighted_mean_token_log_likelihood():
    _, model, _ = trainer()
    batch = pack_trees([ROWS[0].tree], 0, 256)
    target = torch.tensor([[0.8, 0.2]])
    with torch.no_grad():
        loss = clone_loss(model, batch, target, torch.tensor([[-5.0, -9.0]]), 0.0)
        sums, _ = candidate_logprobs(model, batch)
    assert float(loss) == pytest.approx(-float(0.8 * sums[0, 0] / 2 + 0.2 * sums[0, 1] / 3))


def test_the_kl_term_is_zero_at_the_reference_and_positive_elsewhere():
    _, model, _ = trainer()
    batch, target = pack_trees([ROWS[0].tree], 0, 256), torch.tensor([[0.5, 0.5]])
    with torch.no_grad():
        reference, _ = candidate_logprobs(model, batch)
        plain = clone_loss(model, batch, target, reference, 0.0)
        same = clone_loss(model, batch, target, reference, 5.0)
        moved = clone_loss(model, batch, target, reference + torch.tensor([[0.0, 12.0]]), 5.0)
    assert float(same) == pytest.approx(float(plain), abs=1e-5)
    assert float(moved) > float(plain) + 1e-3


def test_training_raises_the_likelihood_of_targets_and_leaves_the_base_alone():
    _, model, learner = trainer()
    before = fingerprint(model, adapter=False)
    losses = [learner.step_once() for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0]
    assert equal(before, fingerprint(model, adapter=False))


def test_the_cursor_passes_over_all_rows_and_never_ends():
    _, _, learner = trainer()
    passes = [learner._batch_indices(step) for step in range(30)]
    flat = [i for batch in passes for i in batch]
    assert len(flat) == 60 and all(flat.count(i) == 20 for i in range(3))
    assert {tuple(flat[i : i + 3]) for i in range(0, 60, 3)} > {tuple(flat[:3])}


def test_a_group_without_rows_is_an_error_and_not_zero_steps():
    with pytest.raises(DataError, match="no training rows"):
        trainer(rows=[])


@pytest.mark.parametrize("interrupted_at", [1, 4, 7])
def test_resume_equals_an_uninterrupted_run_bit_for_bit(interrupted_at):
    _, whole_model, whole = trainer()
    for _ in range(8):
        whole.step_once()
    _, _, first = trainer()
    for _ in range(interrupted_at):
        first.step_once()
    saved = first.checkpoint({})
    _, model, second = trainer()
    second.restore(saved)
    while second.step < 8:
        second.step_once()
    assert equal(fingerprint(whole_model, True), fingerprint(model, True))
    assert second.losses == whole.losses


def test_restoring_does_not_wrap_the_adapter_again():
    _, model, learner = trainer()
    names = set(dict(model.named_parameters()))
    learner.step_once()
    learner.restore(learner.checkpoint({}))
    assert set(dict(model.named_parameters())) == names


def test_a_second_adapter_on_an_adapter_is_refused():
    base, _, _ = trainer()
    with pytest.raises(TrialignError, match="already carries an adapter"):
        add_adapter(base, CONFIG, seed=0)


def test_a_fresh_adapter_computes_what_the_base_does():
    _, model, _ = trainer()
    batch = pack_trees([r.tree for r in ROWS], 0, 256)
    with torch.no_grad():
        adapted, _ = candidate_logprobs(model, batch)
        with model.disable_adapter():
            plain, _ = candidate_logprobs(model, batch)
    assert torch.equal(adapted, plain)


def test_an_exported_adapter_comes_back_and_fits_its_own_base_alone(tmp_path):
    base, model, learner = trainer()
    learner.step_once()
    export_adapter(model, base, tmp_path / "a", {"group": "g"})
    again = load_adapter(load_language_model(SHIPPED_BASE), tmp_path / "a")
    assert equal(adapter_tensors(model), adapter_tensors(again))
    other = new_llama(base.tokenizer, 128, 2, seed=9)
    save_language_model(other, base.tokenizer, tmp_path / "other")
    with pytest.raises(ConfigError, match="use the base it was trained on"):
        load_adapter(load_language_model(tmp_path / "other"), tmp_path / "a")


def test_rates_warm_up_and_decay():
    _, _, learner = trainer(CloneConfig(steps=100))
    assert learner._rate(0) == pytest.approx(0.1, abs=1e-3)
    assert learner._rate(50) == pytest.approx(0.5) and 0 < learner._rate(99) < 0.03
    assert math.isfinite(learner._rate(100))
