"""The reference that rows were made for, and an adapter that several groups share."""

import math
from dataclasses import replace

import pytest

from tests.trialign_ray.tiny_clone import (
    CONFIG,
    ROWS,
    STALE,
    clone_row,
    equal,
    fingerprint,
    referenced,
    trainer,
)
from trialign_ray.checkpoint import newest_checkpoint, save_checkpoint
from trialign_ray.clone import REFERENCE_TOLERANCE
from trialign_ray.errors import DataError
from trialign_ray.group_mixer import GroupMixer


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


def test_a_shared_batch_holds_a_batch_of_each_group():
    _, learner = shared_trainer("pooled")
    for step in range(6):
        groups = [r.group for r in learner._batch_rows(step)]
        # batches of four: all three rows of a, both of b; the mixer weighs groups, not rows
        assert groups == ["a", "a", "a", "b", "b"]


def test_a_shared_adapter_of_more_groups_than_the_batch_serves_them_all():
    rows = [clone_row(i, f"g{i}") for i in range(5)]
    _, _, learner = trainer(CONFIG, rows)
    assert [r.group for r in learner._batch_rows(0)] == [f"g{i}" for i in range(5)]
