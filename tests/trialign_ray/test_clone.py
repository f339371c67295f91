"""Cloning: the loss, the cursor that never ends, resume, and the base that stays as it is."""

import math
from dataclasses import replace

import pytest
import torch

from tests.trialign_ray.tiny_clone import (
    CONFIG,
    ROWS,
    equal,
    fingerprint,
    referenced,
    trainer,
)
from trialign_ray.adapters import adapter_tensors, add_adapter, export_adapter, load_adapter
from trialign_ray.clone import (
    CloneTrainer,
    batch_indices,
    candidate_batch,
    candidate_policy,
)
from trialign_ray.errors import ConfigError, DataError, TrialignError
from trialign_ray.extraction import EXTRACTIONS
from trialign_ray.language_model import load_language_model, new_llama, save_language_model
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.tree_batch import Tree, candidate_logprobs, pack_trees


def loss_of(config, row):
    _, _, learner = trainer(config, [row])
    with torch.no_grad():
        return float(learner._loss([row]))


def test_the_loss_is_the_weighted_mean_token_log_likelihood():
    _, model, _ = trainer()
    with torch.no_grad():
        sums, _ = candidate_logprobs(model, pack_trees([ROWS[0].tree], 0, 256))
    by_hand = -float(0.8 * sums[0, 0] / 2 + 0.2 * sums[0, 1] / 3)
    assert loss_of(CONFIG, ROWS[0]) == pytest.approx(by_hand)


def test_the_kl_term_is_zero_at_the_reference_and_positive_elsewhere():
    (row,) = referenced(ROWS[:1])
    dear = CONFIG.model_copy(update={"kl_weight": 5.0})
    first, second = row.reference_logprob_K
    moved = replace(row, reference_logprob_K=(first, second + 12.0))
    plain = loss_of(CONFIG, row)
    assert loss_of(dear, row) == pytest.approx(plain, abs=1e-5)
    assert loss_of(dear, moved) > plain + 1e-3


def test_rows_of_unlike_width_are_padded_with_what_teaches_nothing():
    _, model, learner = trainer()
    wide = replace(
        ROWS[0],
        tree=Tree([2, 30], [[50, 3], [60, 61, 3], [70, 3]]),
        target_K=(0.5, 0.3, 0.2),
        reference_logprob_K=(-5.0, -9.0, -4.0),
        prior_K=(1.0, 2.0, 3.0),
        value_K=(1.0, 0.0, math.nan),
        margin_K=(0.0, 0.1, 0.2),
    )
    with torch.no_grad():
        batch = candidate_batch(model, [ROWS[1], wide], 0)
    assert batch.mask_BK.tolist() == [[True, True, False], [True] * 3]
    assert batch.known_BK.tolist() == [[True, True, False], [True, True, False]]
    assert batch.target_BK[0, 2] == 0 and batch.prior_BK[0, 2] == 0
    assert batch.log_ratio_BK[0, 2] == 0 and math.isnan(batch.value_BK[0, 2])
    alone = float(learner._loss([ROWS[1]]).detach()) + float(learner._loss([wide]).detach())
    assert float(learner._loss([ROWS[1], wide]).detach()) == pytest.approx(alone / 2, rel=1e-5)


def test_among_its_candidates_an_untrained_policy_answers_as_the_log_does():
    # Log-ratios 0: mu = (1.5, .5) / 2. A log-ratio of ln 3 for the second: (1.5, 1.5) / 3.
    prior, mask = torch.tensor([[1.5, 0.5, 0.0]]), torch.tensor([[True, True, False]])
    start = candidate_policy(torch.zeros(1, 3), prior, mask)
    assert start[0].tolist() == pytest.approx([0.75, 0.25, 0])
    moved = candidate_policy(torch.tensor([[0.0, math.log(3), 0.0]]), prior, mask)
    assert moved[0].tolist() == pytest.approx([0.5, 0.5, 0])


def test_training_raises_the_likelihood_of_targets_and_leaves_the_base_alone():
    _, model, learner = trainer()
    before = fingerprint(model, adapter=False)
    losses = [learner.step_once() for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0]
    assert equal(before, fingerprint(model, adapter=False))


def test_the_cursor_passes_over_all_rows_and_never_ends():
    passes = [batch_indices(3, 2, step, seed=2) for step in range(30)]
    flat = [i for batch in passes for i in batch]
    assert len(flat) == 60 and all(flat.count(i) == 20 for i in range(3))
    assert {tuple(flat[i : i + 3]) for i in range(0, 60, 3)} > {tuple(flat[:3])}


def test_a_batch_larger_than_the_data_is_the_data():
    assert sorted(batch_indices(3, 12, 5, seed=2)) == [0, 1, 2]


def test_an_update_is_a_function_of_seed_and_step():
    _, _, learner = trainer()
    for step in (0, 1, 7):
        expected = [ROWS[i] for i in batch_indices(3, 2, step, seed=2)]
        assert learner._batch_rows(step) == expected


def test_the_same_seed_gives_the_same_losses_and_another_does_not():
    runs = []
    for seed in (2, 2, 3):
        base = load_language_model(SHIPPED_BASE)
        model = add_adapter(base, CONFIG, seed=1)
        learner = CloneTrainer(model, 0, ROWS, CONFIG, seed=seed)
        runs.append([learner.step_once() for _ in range(4)])
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("extraction", EXTRACTIONS)
def test_every_extraction_raises_the_better_answer_over_the_other(extraction):
    rows = referenced(ROWS)
    _, model, learner = trainer(CONFIG.model_copy(update={"extraction": extraction}), rows)
    learner.require_reference()
    for _ in range(8):
        assert math.isfinite(learner.step_once())
    with torch.no_grad():
        after = candidate_batch(model, rows, 0).log_ratio_BK
    assert float((after[:, 0] - after[:, 1]).mean()) > 0.05


def test_an_extraction_that_does_not_exist_is_refused_before_training():
    with pytest.raises(ConfigError, match="expected one of awr, clone"):
        trainer(CONFIG.model_copy(update={"extraction": "ppo"}))


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
    _, _, learner = trainer(CONFIG.model_copy(update={"steps": 100}))
    assert learner._rate(0) == pytest.approx(0.1, abs=1e-3)
    assert learner._rate(50) == pytest.approx(0.5) and 0 < learner._rate(99) < 0.03
    assert math.isfinite(learner._rate(100))
