"""Cloning: the loss, the cursor that never ends, resume, and the base that stays as it is."""

import math
from dataclasses import replace

import pytest
import torch

from trialign_ray.adapters import adapter_tensors, add_adapter, export_adapter, load_adapter
from trialign_ray.checkpoint import newest_checkpoint, save_checkpoint
from trialign_ray.clone import (
    REFERENCE_TOLERANCE,
    CloneRow,
    CloneTrainer,
    batch_indices,
    candidate_batch,
    candidate_policy,
)
from trialign_ray.config import CloneConfig
from trialign_ray.errors import ConfigError, DataError, TrialignError
from trialign_ray.extraction import EXTRACTIONS
from trialign_ray.group_mixer import GroupMixer
from trialign_ray.language_model import load_language_model, new_llama, save_language_model
from trialign_ray.tiny_lm import SHIPPED_BASE
from trialign_ray.tree_batch import Tree, candidate_logprobs, pack_trees

CONFIG = CloneConfig(
    steps=8, batch_size=2, lora_rank=4, learning_rate=1e-2, extraction="clone"
)
STALE = (-5.0, -9.0)
"""No model's log-probabilities."""


def clone_row(i: int, group: str = "a", reference=STALE) -> CloneRow:
    return CloneRow(
        group=group,
        tree=Tree([2, 30 + i], [[50 + i, 3], [60 + i, 61, 3]]),
        target_K=(0.8, 0.2),
        reference_logprob_K=reference,
        prior_K=(1.5, 0.5),
        value_K=(1.0, 0.25),
        margin_K=(0.0, 0.0),
    )


ROWS = [clone_row(i) for i in range(3)]


def trainer(config=CONFIG, rows=ROWS, mixer=None):
    base = load_language_model(SHIPPED_BASE)
    model = add_adapter(base, config, seed=1)
    learner = CloneTrainer(model, base.tokenizer.pad_token_id, rows, config, seed=2, mixer=mixer)
    return base, model, learner


def referenced(rows):
    """The rows with log-probabilities of the shipped base, as the critic stores them."""
    model = load_language_model(SHIPPED_BASE).model
    with torch.no_grad():
        sums, _ = candidate_logprobs(model, pack_trees([r.tree for r in rows], 0, 256))
    pairs = [(float(first), float(second)) for first, second in sums]
    return [replace(r, reference_logprob_K=p) for r, p in zip(rows, pairs, strict=True)]


def fingerprint(model, adapter):
    named = [(n, p) for n, p in model.named_parameters() if ("lora_" in n) == adapter]
    return {n: p.detach().clone() for n, p in named}


def equal(one, other):
    return all(torch.equal(one[n], other[n]) for n in one)


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


def test_the_stored_reference_is_the_model_at_the_start():
    _, _, learner = trainer(rows=referenced(ROWS))
    learner.require_reference()
    learner.step_once()
    with pytest.raises(DataError, match="differ by"):
        learner.require_reference()


@pytest.mark.parametrize("error", [2 * REFERENCE_TOLERANCE, -3.0, math.nan])
def test_a_reference_of_another_model_is_refused_with_the_way_out(error):
    rows = referenced(ROWS)
    first, second = rows[1].reference_logprob_K
    rows[1] = replace(rows[1], reference_logprob_K=(first, second + error))
    with pytest.raises(DataError, match=r"another model; delete the run's critic/ and targets/"):
        trainer(rows=rows)[2].require_reference()


def test_the_reference_of_every_group_is_looked_at():
    rows = referenced([clone_row(i, group) for i, group in enumerate("aaaaab")])
    wrong = replace(rows[-1], reference_logprob_K=STALE)
    trainer(rows=rows)[2].require_reference()
    with pytest.raises(DataError, match="another model"):
        trainer(rows=[*rows[:-1], wrong])[2].require_reference()


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


SHARED = [clone_row(i, "a") for i in range(3)] + [clone_row(3 + i, "b") for i in range(2)]


def shared_trainer(sharing):
    config = CONFIG.model_copy(update={"extraction": "awr", "batch_size": 4})
    rows = referenced(SHARED)
    # What is good for a is bad for b, so that weights move.
    rows = [replace(r, value_K=r.value_K[::-1]) if r.group == "b" else r for r in rows]
    _, model, learner = trainer(config, rows, GroupMixer(sharing, ("a", "b")))
    return model, learner


@pytest.mark.parametrize("sharing", ["pooled", "group_robust", "worst_group"])
@pytest.mark.parametrize("interrupted_at", [1, 5])
def test_a_shared_adapter_resumes_bit_for_bit_from_a_checkpoint_on_disk(
    tmp_path, sharing, interrupted_at
):
    whole_model, whole = shared_trainer(sharing)
    for _ in range(8):
        whole.step_once()
    _, first = shared_trainer(sharing)
    for _ in range(interrupted_at):
        first.step_once()
    save_checkpoint(tmp_path, first.checkpoint({"run": "r"}))
    saved = newest_checkpoint(tmp_path, {"run": "r"})
    assert saved is not None
    model, second = shared_trainer(sharing)
    second.restore(saved)
    while second.step < 8:
        second.step_once()
    assert equal(fingerprint(whole_model, True), fingerprint(model, True))
    assert second.losses == whole.losses
    assert second.checkpoint({}).state == whole.checkpoint({}).state
    if sharing != "pooled":
        assert second.checkpoint({}).state["mixer"]["weight"] != [0.5, 0.5]


def test_a_shared_batch_holds_as_many_rows_of_each_group():
    _, learner = shared_trainer("pooled")
    for step in range(6):
        assert [r.group for r in learner._batch_rows(step)] == ["a", "a", "b", "b"]


def test_a_shared_adapter_of_more_groups_than_the_batch_serves_them_all():
    rows = [clone_row(i, f"g{i}") for i in range(5)]
    _, _, learner = trainer(CONFIG, rows)
    assert [r.group for r in learner._batch_rows(0)] == [f"g{i}" for i in range(5)]


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
