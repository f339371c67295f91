"""A run with a common adapter beside each group's own: who trains it, what is served, and that a
kill in either phase changes nothing."""

import json
import threading
import time

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.trialign_ray.runs import adapter_hashes, make_recipe, run_all, small_config
from tests.trialign_ray.stopped_runs import Stopped, train, train_in_lives, untrained_copy
from trialign_ray.adapters import (
    load_adapter,
)
from trialign_ray.checkpoint import file_sha256, write_json
from trialign_ray.engines.transformers import TransformersEngine
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.language_model import load_language_model
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.run_directory import RunDirectory, open_run
from trialign_ray.training_rows import read_group_weights

GROUPS = ("amber", "birch", "cedar", "delta")
RANK, OWN_RANK = 4, 8
SHARED = (f"clone.shared_rank={RANK}", "clone.steps=10", "clone.checkpoint_every=4")


@pytest.fixture(scope="module")
def config():
    return small_config(*SHARED)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, config):
    recipe = make_recipe(tmp_path_factory.mktemp("shared") / "run", config, local=True)
    return recipe.run_dir, run_all(recipe)


def exported(run, group):
    return load_file(run.adapter_dir(group) / "adapter_model.safetensors")


def test_groups_have_the_common_part_in_common_and_their_own_apart(finished):
    run, _ = finished
    common = exported(run, "_common")
    by_group = {g: exported(run, g) for g in GROUPS}
    for key, tensor in common.items():
        for tensors in by_group.values():
            if "lora_A" in key:
                assert torch.equal(tensors[key][:RANK], tensor)
            else:  # scale lora_alpha / rank = 16 / 4, a power of two: exact
                assert torch.equal(tensors[key][:, :RANK], 4 * tensor)
    moved = [k for k in common if "lora_B" in k and float(common[k].abs().max()) > 0]
    assert moved
    own = {g: t[moved[0]][:, RANK:] for g, t in by_group.items()}
    assert own["amber"].shape[1] == OWN_RANK
    for one, other in (("amber", "birch"), ("birch", "cedar"), ("cedar", "delta")):
        assert not torch.equal(own[one], own[other])


def test_the_common_rows_hold_every_groups_rows_and_credits(finished):
    run, _ = finished
    path = run.root / "targets" / "shared" / "rows.parquet"
    rows = pq.read_table(path).to_pylist()
    for group in GROUPS:
        own = pq.read_table(run.rows_file(group)).to_pylist()
        assert [r for r in rows if r["group"] == group] == own
    credit = json.loads(run.solution_file.read_text())["credit"]
    sums = {g: sum(by_group[g] for by_group in credit.values()) for g in GROUPS}
    expected = {g: s / sum(sums.values()) for g, s in sums.items()}
    assert read_group_weights(path) == pytest.approx(expected)


def test_evaluation_serves_the_export_as_plain_peft_loads_it(finished, config):
    run, evaluation = finished
    assert evaluation["models"]["aligned"]["truth"]["by_group"].keys() == set(GROUPS)
    recipe = make_recipe(run.root, config, local=True, resume=True)
    row = pq.read_table(run.rows_file("birch")).to_pylist()[0]
    asked = [row["prompt_text"]], [row["candidate_text"]]
    agents = recipe.workers.on_groups("score", {"birch": ("aligned", *asked)})["birch"]
    recipe.close()
    base = load_language_model(SHIPPED_BASE)
    plain = TransformersEngine(load_adapter(base, run.adapter_dir("birch")), base.tokenizer)
    [[ours]], [[theirs]] = agents[:1], plain.score(*asked)[:1]
    assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-5)
    assert ours.logprob > row["reference_logprob"][0]


def test_an_agent_that_trained_serves_what_it_trained(finished, tmp_path, config):
    """In one process: both adapters active while training, then the export as a third one."""
    run, evaluation = finished
    recipe = train(untrained_copy(run, tmp_path / "again"), config, resume=True)
    assert adapter_hashes(recipe.run_dir) == adapter_hashes(run)
    again = make_recipe(recipe.run_dir.root, config, local=True, resume=True)
    assert run_all(again) == evaluation


def test_a_run_stopped_in_either_phase_ends_with_the_same_adapters(finished, tmp_path, config):
    """Two single calls: inside the common phase, which is 5 of them. Then 13 a life."""
    run, _ = finished
    folder = untrained_copy(run, tmp_path / "stopped")
    with pytest.raises(Stopped):
        train(folder, config, resume=True, num_calls=2)
    assert list((folder / "checkpoints" / "_common").iterdir())
    assert not (folder / "adapters").exists()
    assert train_in_lives(folder, config, num_calls=13) > 1
    assert adapter_hashes(RunDirectory(folder)) == adapter_hashes(run)


def test_both_options_together_resume_to_the_same_adapters(finished, tmp_path):
    run, _ = finished
    config = small_config(*SHARED, "clone.coordinate_every=5")
    hashes = []
    for name in ("whole", "stopped"):
        folder = tmp_path / name
        open_run(folder, config, resume=False)
        source = untrained_copy(run, tmp_path / f"{name}-source")
        for part in ("dataset", "critic", "targets"):
            (source / part).rename(folder / part)
        if name == "whole":
            train(folder, config, resume=True)
        else:
            assert train_in_lives(folder, config, num_calls=13) > 1
        assert (folder / "targets" / "round-1" / "solution.json").is_file()
        assert not (folder / "targets" / "round-1" / "shared").exists()
        hashes.append(adapter_hashes(RunDirectory(folder)))
    assert hashes[0] == hashes[1]


def test_own_adapters_go_on_beside_the_common_one_they_began_with_alone(finished, tmp_path, config):
    run, _ = finished
    folder = untrained_copy(run, tmp_path / "changed")
    with pytest.raises(Stopped):
        train(folder, config, resume=True, num_calls=5 + 8)
    record = folder / "adapters" / "_common" / "training.json"
    weights = record.with_name("adapter_model.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"?")
    with pytest.raises(DataError, match="the training exported"):
        train(folder, config, resume=True)
    weights.write_bytes(whole)
    said = json.loads(record.read_text())
    weights.write_bytes(whole[:-4] + b"\0\0\0\0")
    write_json(record, {**said, "adapter_sha256": file_sha256(weights)})
    with pytest.raises(ConfigError, match="has common_sha256"):
        train(folder, config, resume=True)


@pytest.mark.ray
def test_the_agent_that_trains_for_all_is_killed_and_loses_nothing(
    ray_local, finished, tmp_path, config
):
    run, _ = finished
    folder = untrained_copy(run, tmp_path / "lead")
    recipe = make_recipe(folder, config, local=False, resume=True)

    def kill_after_a_checkpoint():
        deadline = time.monotonic() + 120
        written = folder / "checkpoints" / "_common" / "step-00000004" / "manifest.json"
        while not written.is_file() and time.monotonic() < deadline:
            time.sleep(0.002)
        ray_local.kill(ray_local.get_actor("trialign/lead/group-amber"), no_restart=False)

    thread = threading.Thread(target=kill_after_a_checkpoint)
    try:
        assert recipe.workers.groups == GROUPS
        thread.start()
        recipe.clone()
        thread.join()
    finally:
        recipe.close()
        recipe.progress.close()
    common = json.loads((folder / "adapters" / "_common" / "training.json").read_text())
    assert common["resumed_at"] >= 4
    assert adapter_hashes(recipe.run_dir) == adapter_hashes(run)
